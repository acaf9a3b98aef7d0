"""Sessions: a graph file, a provider and options become something that runs. Sessions are shared between threads."""

import contextlib
import sys
from pathlib import Path
from typing import Any

from engine.errors import ProviderError
from engine.manifest import GraphFile
from engine.runtime.options import RuntimeOptions
from engine.runtime.providers import PROVIDERS, Provider, onnxruntime, plug_in_devices


def open_session(folder: Path, graph: GraphFile, provider: Provider, options: RuntimeOptions) -> Any:
    """Returns an onnxruntime.InferenceSession for a graph of a bundle.

    Raises ProviderError where ONNX Runtime cannot build it or would quietly run it elsewhere.
    """
    ort = onnxruntime()
    settings = ort.SessionOptions()
    settings.intra_op_num_threads = options.threads
    settings.inter_op_num_threads = 1  # the graphs are chains: there is nothing to run side by side
    settings.log_severity_level = 3
    if graph.graph != "search_step":
        # its threads would spin on the cores that the next graph needs; steps follow one another at once and gain
        settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
    chosen = provider.options(options, graph)
    path = str(folder / graph.file)
    try:
        if provider.ort_name in ort.get_available_providers():
            if provider.device == "cuda" and hasattr(ort, "preload_dlls"):
                with contextlib.redirect_stdout(sys.stderr):  # it prints what it misses
                    ort.preload_dlls()  # finds the CUDA libraries that other packages installed
            providers = [(provider.ort_name, chosen)]
            if provider.behind is not None:
                second = PROVIDERS[provider.behind]
                providers.append((second.ort_name, second.options(options, graph)))
            session = ort.InferenceSession(path, settings, providers=providers, enable_fallback=False)
        else:
            settings.add_provider_for_devices(list(plug_in_devices(provider)), chosen)
            session = ort.InferenceSession(path, settings, enable_fallback=False)
    except Exception as error:  # ONNX Runtime raises its own unrelated classes, and RuntimeError
        raise ProviderError(f"provider {provider.name!r} cannot run {graph.file}: {error}") from error
    if session.get_providers()[0] != provider.ort_name:
        ran = ", ".join(session.get_providers())
        raise ProviderError(
            f"provider {provider.name!r} could not be started for {graph.file} (ONNX Runtime offers {ran} instead): "
            "its libraries or its device are missing"
        )
    return session
