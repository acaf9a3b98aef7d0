"""Providers: the one table from the names users give to ONNX Runtime's names and options.

Knows nothing of models beyond the shapes of a graph's inputs. Never falls back silently.
"""

import functools
import importlib
import importlib.util
import json
import platform
import threading
import types
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.bundle.manifest import GraphFile
from engine.errors import ProviderError
from engine.runtime.options import RuntimeOptions

ProviderOptions = dict[str, str]
CPU = "CPUExecutionProvider"


@dataclass(frozen=True, slots=True)
class Provider:
    """One execution provider.

    device is where its inputs and outputs are, by ONNX Runtime's names. decoder names the provider that runs the
    decoder's graphs when this one runs the encoder. extra is the install extra with the provider; plug_in is the
    module whose library has to be registered if the provider is not built into ONNX Runtime.
    """

    name: str
    ort_name: str
    device: str
    decoder: str
    extra: str
    options: Callable[[RuntimeOptions, GraphFile], ProviderOptions]
    plug_in: str | None = None
    package: str | None = None  # the distribution with the plug-in
    behind: str | None = None  # the provider for nodes that this one does not support; None: ONNX Runtime's CPU
    cache: Callable[[str, str], ProviderOptions] | None = None  # for providers that build engines: folders to options


CAPTURED = ("encoder", "search_step", "sample_step")
"""The graphs to run through CUDA graphs: those that run often, with few shapes and fixed memory."""


def _cpu(options: RuntimeOptions, graph: GraphFile) -> ProviderOptions:
    return {}


def _cuda(options: RuntimeOptions, graph: GraphFile) -> ProviderOptions:
    limit = {} if options.gpu_memory_limit is None else {"gpu_mem_limit": str(options.gpu_memory_limit)}
    capture = {"enable_cuda_graph": "1"} if options.cuda_graphs and graph.graph in CAPTURED else {}
    return {
        "device_id": str(options.device_id),
        "arena_extend_strategy": "kSameAsRequested",  # buckets request the same sizes again: no need for powers of two
        "cudnn_conv_algo_search": options.cudnn_conv_algo_search,
        "use_tf32": str(int(options.tf32)),
        **limit,
        **capture,
    }


def _tensorrt(options: RuntimeOptions, graph: GraphFile) -> ProviderOptions:
    return {
        "device_id": str(options.device_id),
        "trt_fp16_enable": str(int(options.fp16 or graph.precision == "fp16")),
        "trt_int8_enable": str(int(graph.precision == "int8")),  # the scales are in the graph
        **_profiles("trt_", options, graph),
    }


def _tensorrt_cache(engines: str, timings: str) -> ProviderOptions:
    return {
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": engines,
        "trt_timing_cache_enable": "1",
        "trt_timing_cache_path": timings,
    }


def _tensorrt_rtx(options: RuntimeOptions, graph: GraphFile) -> ProviderOptions:
    return {"device_id": str(options.device_id), **_profiles("nv_", options, graph)}


def _tensorrt_rtx_cache(engines: str, timings: str) -> ProviderOptions:
    return {"nv_runtime_cache_path": engines}


def _openvino(options: RuntimeOptions, graph: GraphFile) -> ProviderOptions:
    # where the processor has bfloat16, OpenVINO would compute fp32 graphs in it
    cpu: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32"}
    if options.threads:
        cpu["INFERENCE_NUM_THREADS"] = options.threads
    return {"device_type": "CPU", "load_config": json.dumps({"CPU": cpu})}


def _profiles(prefix: str, options: RuntimeOptions, graph: GraphFile) -> ProviderOptions:
    """Returns TensorRT's optimisation profile of an encoder: fewest, usual and most images."""
    images = options.profile_images or (1, 32, 32)
    return {
        f"{prefix}profile_{kind}_shapes": ",".join(
            f"{tensor.name}:" + "x".join(str(size if isinstance(extent, str) else extent) for extent in tensor.shape)
            for tensor in graph.inputs
        )
        for kind, size in zip(("min", "opt", "max"), images, strict=True)
    }


PROVIDERS = {
    provider.name: provider
    for provider in (
        Provider("cpu", CPU, "cpu", "cpu", "cpu", _cpu),
        Provider("cuda", "CUDAExecutionProvider", "cuda", "cuda", "gpu", _cuda),
        Provider(
            "tensorrt",
            "TensorrtExecutionProvider",
            "cuda",
            "cuda",  # rows change with every step and k is known only then, which a prebuilt engine cannot handle
            "gpu",
            _tensorrt,
            behind="cuda",
            cache=_tensorrt_cache,
        ),
        Provider(
            "openvino",
            "OpenVINOExecutionProvider",
            "cpu",
            "cpu",
            "openvino",
            _openvino,
            "onnxruntime_ep_openvino",
            "onnxruntime-ep-openvino",
        ),
        Provider(
            "tensorrt-rtx",
            "NvTensorRTRTXExecutionProvider",
            "cpu",
            "cpu",  # its TopK would run on the host anyway
            "tensorrt-rtx",
            _tensorrt_rtx,
            "onnxruntime_ep_nv_tensorrt_rtx",
            "onnxruntime-ep-nv-tensorrt-rtx-cu13",
            cache=_tensorrt_rtx_cache,
        ),
    )
}
DECODERS = ("cpu", "cuda")
"""What may run the decoder. Its inputs are bound once and rewritten for every step. A plug-in provider copies inputs
into its own memory when they are bound, so it would compute every step with the first step's inputs."""
AUTO_ORDER = ("cuda", "cpu")  # what "auto" tries; the others round differently or take minutes to build


def onnxruntime() -> types.ModuleType:
    """Imports ONNX Runtime on first use. Raises ProviderError if it is not installed."""
    try:
        return importlib.import_module("onnxruntime")
    except ImportError as error:
        raise ProviderError(
            f"ONNX Runtime cannot be imported ({error}): run python -m pip install '.[cpu]' in a checkout "
            "('.[gpu]' instead on a machine with an NVIDIA GPU)"
        ) from error


def find_provider(name: str) -> Provider:
    """Returns the provider with this known name. Raises ProviderError if it is not available, saying how to get it."""
    provider = PROVIDERS[name]
    if not is_available(provider):
        raise ProviderError(_why_missing(provider))
    return provider


def available_providers() -> list[str]:
    """Returns the names of the providers that can run here."""

    def runs(provider: Provider) -> bool:
        try:
            return is_available(provider)
        except ProviderError:  # a broken plug-in is reported when it is asked for by name
            return False

    return [name for name, provider in PROVIDERS.items() if runs(provider)]


def is_available(provider: Provider) -> bool:
    """Returns whether the provider is built into ONNX Runtime, or its plug-in finds a device it can use."""
    return is_built_in(provider) or bool(plug_in_devices(provider))


def is_built_in(provider: Provider) -> bool:
    """Returns whether the provider is built into ONNX Runtime."""
    return provider.ort_name in built_in_providers()


def built_in_providers() -> list[str]:
    """Returns ONNX Runtime's names of the providers that are part of it.

    ONNX Runtime lists built-in providers first, ending with its CPU provider, and then every registered plug-in,
    whether or not it finds a device.
    """
    names: list[str] = onnxruntime().get_available_providers()
    return names[: names.index(CPU) + 1] if CPU in names else names


def plug_in_devices(provider: Provider) -> tuple[Any, ...]:
    """Registers a provider's plug-in library, once in a process, and returns the devices it offers."""
    with _registering:
        _register(provider)
    wanted = "CPU" if provider.name == "openvino" else "GPU"  # an Intel machine may offer its GPU and NPU too
    return tuple(device for device in _devices(provider) if device.device.type.name == wanted)


_registering = threading.Lock()


@functools.cache  # ONNX Runtime refuses to register a library twice
def _register(provider: Provider) -> None:
    if provider.plug_in is None or _devices(provider):  # other code in this process may have registered it
        return
    try:
        plug_in = importlib.import_module(provider.plug_in)
    except ImportError:
        return
    try:
        onnxruntime().register_execution_provider_library(provider.ort_name, plug_in.get_library_path())
    except (AttributeError, RuntimeError, OSError) as error:
        raise ProviderError(f"the plug-in of provider {provider.name!r} cannot be loaded: {error}") from error


def _devices(provider: Provider) -> list[Any]:
    return [device for device in onnxruntime().get_ep_devices() if device.ep_name == provider.ort_name]


def plug_in_version(provider: Provider) -> str | None:
    """Returns the version of a provider's plug-in, if it is installed."""
    from importlib import metadata  # takes 40 ms to import, and most providers have no plug-in

    try:
        return metadata.version(provider.package) if provider.package else None
    except metadata.PackageNotFoundError:
        return None


def _why_missing(provider: Provider) -> str:
    there = ", ".join(available_providers())
    if provider.name == "openvino" and not _on_intel():
        why = (
            "its plug-in runs on Intel processors only; for other x86 processors there is onnxruntime-openvino, "
            "which takes the place of onnxruntime: run python -m pip uninstall onnxruntime and then "
            "python -m pip install '.[openvino-x86]' in a checkout"
        )
    elif provider.plug_in is not None and importlib.util.find_spec(provider.plug_in):
        why = f"its plug-in {provider.plug_in} is installed but offers no device on this machine"
    else:
        first = (
            "python -m pip uninstall onnxruntime and then " if provider.extra == "gpu" else ""
        )  # both are one module
        why = f"run {first}python -m pip install '.[{provider.extra}]' in a checkout"
    return f"provider {provider.name!r} is not available here (available: {there}): {why}"


def _on_intel() -> bool:
    try:
        said = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:  # not Linux
        said = platform.processor()
    return "GenuineIntel" in said
