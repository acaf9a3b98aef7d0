"""Sessions: a graph file, a provider and options become something that runs. Sessions are shared between threads."""

import contextlib
import sys
import warnings
from pathlib import Path
from typing import Any

from engine.bundle.manifest import GraphFile
from engine.errors import ProviderError
from engine.runtime.engines import Engines
from engine.runtime.nvidia import load_tensorrt
from engine.runtime.options import RuntimeOptions, whole_cores
from engine.runtime.providers import (
    CPU,
    PROVIDERS,
    Provider,
    ProviderOptions,
    is_built_in,
    onnxruntime,
    plug_in_devices,
)

SPIN_US = 200
"""Longer than the gaps between layers and between steps, shorter than the pause between two calls."""
SHAPE_OPS = frozenset(("Shape", "Size", "Constant", "ConstantOfShape"))
"""What ONNX Runtime computes on the host on purpose, whatever the provider."""


def open_session(folder: Path, graph: GraphFile, provider: Provider, options: RuntimeOptions) -> Any:
    """Returns an onnxruntime.InferenceSession for a graph of a bundle.

    Where the provider builds engines, one that was saved for this very graph, GPU and options is loaded instead.
    Raises ProviderError where ONNX Runtime cannot build it or would quietly run it elsewhere.
    """
    engines, chosen, path = Engines.of(folder, graph, provider, options), {}, folder / graph.file
    if engines is not None:
        chosen = engines.cache_options(provider)
        if (saved := engines.saved()) is not None:
            try:
                return _whole(_open(saved, graph, provider, options, chosen), graph, provider)
            except ProviderError as error:
                warnings.warn(f"{error}; {graph.graph} is built anew", RuntimeWarning, stacklevel=2)
    return _open(path, graph, provider, options, chosen)


def save_engine(folder: Path, graph: GraphFile, provider: Provider, options: RuntimeOptions) -> Path | None:
    """Builds a graph's engine and saves it as the provider's context model, which `open_session` loads from then on.

    Returns the file; None for a provider that builds nothing, or not this graph. Raises ProviderError where the
    provider saves nothing, and OSError where it cannot be kept.
    """
    import tempfile  # takes its time, and few save anything

    if provider.cache is None:
        return None
    engines = Engines.of(folder, graph, provider, options)
    if engines is None:
        raise ProviderError("there is no folder to save engines in: name one")
    with tempfile.TemporaryDirectory() as place:
        model = Path(place) / "engine.onnx"
        entries = {
            "ep.context_enable": "1",
            "ep.context_file_path": str(model),
            "ep.context_embed_mode": "1",  # the engine inside the model: one file
        }
        _open(folder / graph.file, graph, provider, options, {}, entries)
        if not model.is_file():
            raise ProviderError(
                f"provider {provider.name!r} saved no engine of {graph.file}: it does not take the graph whole; its "
                f"cache in {engines.folder} serves later processes on this machine all the same"
            )
        _whole(_open(model, graph, provider, options, {}), graph, provider)  # what cannot be loaded is not kept
        return engines.keep(model)


def _whole(session: Any, graph: GraphFile, provider: Provider) -> Any:
    """Refuses a saved engine that is only a part of its graph."""
    sides = ((session.get_inputs(), graph.inputs), (session.get_outputs(), graph.outputs))
    if any({tensor.name for tensor in there} != {tensor.name for tensor in wanted} for there, wanted in sides):
        raise ProviderError(f"the engine that provider {provider.name!r} saved is only a part of {graph.file}")
    return session


def _open(
    path: Path,
    graph: GraphFile,
    provider: Provider,
    options: RuntimeOptions,
    more: ProviderOptions,
    entries: dict[str, str] | None = None,
) -> Any:
    ort = onnxruntime()
    settings = ort.SessionOptions()
    # left to choose, ONNX Runtime ties its threads to cores: one that the caller runs on just then makes it wait
    settings.intra_op_num_threads = options.threads or whole_cores()
    settings.inter_op_num_threads = 1  # the graphs are chains: there is nothing to run side by side
    settings.log_severity_level = 3
    entries = dict(entries or {})
    if provider.name == "cpu":
        entries |= _spinning(ort)
    if provider.device != "cpu":
        entries["session.record_ep_graph_assignment_info"] = "1"
    for key, value in entries.items():
        settings.add_session_config_entry(key, value)
    chosen = {**provider.options(options, graph), **more}
    try:
        if is_built_in(provider):
            if provider.device == "cuda" and hasattr(ort, "preload_dlls"):
                with contextlib.redirect_stdout(sys.stderr):  # it prints what it misses
                    ort.preload_dlls()  # finds the CUDA libraries that other packages installed
            providers = [(provider.ort_name, chosen)]
            if provider.name == "tensorrt":
                load_tensorrt()
            if provider.behind is not None:
                second = PROVIDERS[provider.behind]
                providers.append((second.ort_name, second.options(options, graph)))
            session = ort.InferenceSession(str(path), settings, providers=providers, enable_fallback=False)
        else:
            settings.add_provider_for_devices(list(plug_in_devices(provider)), chosen)
            session = ort.InferenceSession(str(path), settings, enable_fallback=False)
    except Exception as error:  # ONNX Runtime raises its own unrelated classes, and RuntimeError
        raise ProviderError(f"provider {provider.name!r} cannot run {path.name}: {error}") from error
    if session.get_providers()[0] != provider.ort_name:
        ran = ", ".join(session.get_providers())
        raise ProviderError(
            f"provider {provider.name!r} could not be started for {path.name} (ONNX Runtime offers {ran} instead): "
            "its libraries or its device are missing"
        )
    if provider.device != "cpu":
        _warn_of_host_nodes(session, path.name, provider)
    return session


def _spinning(ort: Any) -> dict[str, str]:
    """Lets threads spin from one layer to the next, but not on into the time of whatever uses the cores then."""
    if tuple(map(int, ort.__version__.split(".")[:2])) < (1, 26):  # knows no duration, and its own is far too long
        return {"session.intra_op.allow_spinning": "0"}
    return {"session.intra_op.spin_duration_us": str(SPIN_US)}


def _warn_of_host_nodes(session: Any, file: str, provider: Provider) -> None:
    """Warns of nodes that run on the host: each costs a wait and two copies."""
    try:
        subgraphs = session.get_provider_graph_assignment_info()
    except (AttributeError, RuntimeError):  # an ONNX Runtime that does not tell
        return
    nodes = [node.op_type for subgraph in subgraphs if subgraph.ep_name == CPU for node in subgraph.get_nodes()]
    if ops := sorted(set(nodes) - SHAPE_OPS):
        warnings.warn(
            f"provider {provider.name!r} leaves {', '.join(ops)} of {file} to the host: each run waits and copies for "
            "them",
            RuntimeWarning,
            stacklevel=4,
        )
