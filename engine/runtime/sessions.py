"""Opens sessions from a graph file, a provider and options. Sessions are shared between threads."""

import contextlib
import sys
import warnings
from pathlib import Path
from typing import Any

from engine.bundle.manifest import GraphFile
from engine.errors import ProviderError
from engine.runtime.cuda.nvidia import load_tensorrt
from engine.runtime.engine_cache import Engines
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
"""Longer than the gaps between layers and between steps, but shorter than the pause between two calls."""
SHAPE_OPS = frozenset(("Shape", "Size", "Constant", "ConstantOfShape"))
"""What ONNX Runtime deliberately computes on the host, with any provider."""


def open_session(folder: Path, graph: GraphFile, provider: Provider, options: RuntimeOptions) -> Any:
    """Returns an onnxruntime.InferenceSession for a graph of a bundle.

    If the provider builds engines, one saved for exactly this graph, GPU and options is loaded instead.
    Raises ProviderError if ONNX Runtime cannot build it or would silently run it elsewhere.
    """
    engines, chosen, path = Engines.of(folder, graph, provider, options), {}, folder / graph.file
    if engines is not None:
        chosen = engines.cache_options(provider)
        if (saved := engines.saved()) is not None:
            try:
                return _whole(_open(saved, graph, provider, options, chosen), graph, provider)
            except ProviderError as error:
                warnings.warn(f"{error}; {graph.graph} is built again", RuntimeWarning, stacklevel=2)
    return _open(path, graph, provider, options, chosen)


def save_engine(folder: Path, graph: GraphFile, provider: Provider, options: RuntimeOptions) -> Path | None:
    """Builds a graph's engine and saves it as the provider's context model, which `open_session` then loads.

    Returns the file, or None if the provider builds no engine for this graph. Raises ProviderError if the provider
    saves nothing, and OSError if the file cannot be written.
    """
    import tempfile  # takes its time, and few save anything

    if provider.cache is None:
        return None
    engines = Engines.of(folder, graph, provider, options)
    if engines is None:
        raise ProviderError("this user has no cache folder to save engines in: set RuntimeOptions(engine_cache=...)")
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
                f"provider {provider.name!r} saved no engine of {graph.file}: it cannot run the whole graph; later "
                f"processes on this machine still use its cache in {engines.folder}"
            )
        _whole(_open(model, graph, provider, options, {}), graph, provider)  # keep only what loads
        return engines.keep(model)


def _whole(session: Any, graph: GraphFile, provider: Provider) -> Any:
    """Raises ProviderError for a saved engine that covers only part of its graph."""
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
    # by default ONNX Runtime pins its threads to cores, and then waits for a core that the caller is using
    settings.intra_op_num_threads = options.threads or whole_cores()
    settings.inter_op_num_threads = 1  # the graphs are chains: nothing in them could run in parallel
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
                with contextlib.redirect_stdout(sys.stderr):  # it prints what it does not find
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
            "its libraries or its device are missing; choose another provider, or install what it needs"
        )
    if provider.device != "cpu":
        _warn_of_host_nodes(session, path.name, provider)
    return session


def _spinning(ort: Any) -> dict[str, str]:
    """Lets threads spin between layers, but not so long that they take cores from what runs after."""
    if tuple(map(int, ort.__version__.split(".")[:2])) < (1, 26):  # no option for the duration
        return {"session.intra_op.allow_spinning": "0"}
    return {"session.intra_op.spin_duration_us": str(SPIN_US)}


def _warn_of_host_nodes(session: Any, file: str, provider: Provider) -> None:
    """Warns about nodes that run on the host: each costs a wait and two copies."""
    try:
        subgraphs = session.get_provider_graph_assignment_info()
    except (AttributeError, RuntimeError):  # an ONNX Runtime without this information
        return
    nodes = [node.op_type for subgraph in subgraphs if subgraph.ep_name == CPU for node in subgraph.get_nodes()]
    if ops := sorted(set(nodes) - SHAPE_OPS):
        warnings.warn(
            f"provider {provider.name!r} runs {', '.join(ops)} of {file} on the host: each run waits and copies for "
            "them",
            RuntimeWarning,
            stacklevel=4,
        )
