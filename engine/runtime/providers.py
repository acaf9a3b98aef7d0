"""Providers: the one table from the names users give to ONNX Runtime's names and options.

Knows nothing of models beyond the shapes of a graph's inputs. Never falls back in silence.
"""

import functools
import importlib
import importlib.util
import json
import threading
import types
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from engine.errors import ProviderError
from engine.manifest import GraphFile
from engine.runtime.options import RuntimeOptions

ProviderOptions = dict[str, str]


@dataclass(frozen=True, slots=True)
class Provider:
    """One way of running graphs.

    device is where state lives between steps, in ONNX Runtime's words. extra is the install extra that brings the
    provider; plug_in the module whose library has to be registered where ONNX Runtime does not hold the provider.
    """

    name: str
    ort_name: str
    device: str
    extra: str
    options: Callable[[RuntimeOptions, GraphFile], ProviderOptions]
    plug_in: str | None = None
    behind: str | None = None  # name of the provider that runs the nodes this one refuses; None is ONNX Runtime's CPU
    decoder: str | None = None  # name of the provider that runs the decoder's graphs; None is this one
    cache: Callable[[str, str], ProviderOptions] | None = None  # of a provider that builds engines: folders to options


CAPTURED = ("encoder", "search_step", "greedy_step", "sample_step")
"""The graphs whose runs CUDA graphs replay: those that run often, with few shapes and fixed memory."""


def _cpu(options: RuntimeOptions, graph: GraphFile) -> ProviderOptions:
    return {}


def _cuda(options: RuntimeOptions, graph: GraphFile) -> ProviderOptions:
    limit = {} if options.gpu_memory_limit is None else {"gpu_mem_limit": str(options.gpu_memory_limit)}
    capture = {"enable_cuda_graph": "1"} if options.cuda_graphs and graph.graph in CAPTURED else {}
    return {
        "device_id": str(options.device_id),
        "arena_extend_strategy": "kSameAsRequested",  # buckets ask for the same sizes again: no need of powers of two
        "cudnn_conv_algo_search": options.cudnn_conv_algo_search,
        "use_tf32": str(int(options.tf32)),
        **limit,
        **capture,
    }


def _tensorrt(options: RuntimeOptions, graph: GraphFile) -> ProviderOptions:
    return {
        "device_id": str(options.device_id),
        "trt_fp16_enable": str(int(options.fp16 or graph.precision == "fp16")),
        "trt_int8_enable": str(int(graph.precision == "int8")),  # the scales stand in the graph
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
    return {
        "device_id": str(options.device_id),
        "nv_op_types_to_exclude": "TopK",  # TensorRT wants k when it builds
        **_profiles("nv_", options, graph),
    }


def _tensorrt_rtx_cache(engines: str, timings: str) -> ProviderOptions:
    return {"nv_runtime_cache_path": engines}


def _openvino(options: RuntimeOptions, graph: GraphFile) -> ProviderOptions:
    # where the processor has bfloat16, OpenVINO would compute fp32 graphs in it
    cpu: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32"}
    if options.threads:
        cpu["INFERENCE_NUM_THREADS"] = options.threads
    return {"device_type": "CPU", "load_config": json.dumps({"CPU": cpu})}


def _profiles(prefix: str, options: RuntimeOptions, graph: GraphFile) -> ProviderOptions:
    """Returns TensorRT's optimisation profile: the least, usual and most extent of each dynamic input."""
    images, rows = options.profile_images or (1, 32, 32), options.profile_rows or (1, 96, 512)
    named: ProviderOptions = {}
    for place, kind in enumerate(("min", "opt", "max")):
        sizes = {
            "batch": images[place],
            "rows": rows[place],
            "state_rows": rows[place],
            "bias_rows": 1 if kind != "max" else rows[place],
        }
        shapes = [
            f"{tensor.name}:" + "x".join(str(sizes.get(str(extent), extent)) for extent in tensor.shape)
            for tensor in graph.inputs
            if any(isinstance(extent, str) for extent in tensor.shape)
        ]
        named[f"{prefix}profile_{kind}_shapes"] = ",".join(shapes)
    return named


PROVIDERS = {
    provider.name: provider
    for provider in (
        Provider("cpu", "CPUExecutionProvider", "cpu", "cpu", _cpu),
        Provider("cuda", "CUDAExecutionProvider", "cuda", "gpu", _cuda),
        Provider(
            "tensorrt",
            "TensorrtExecutionProvider",
            "cuda",
            "gpu",
            _tensorrt,
            behind="cuda",
            decoder="cuda",  # its rows change with every step and k is known only then: no work for a built engine
            cache=_tensorrt_cache,
        ),
        Provider("openvino", "OpenVINOExecutionProvider", "cpu", "openvino", _openvino, "onnxruntime_ep_openvino"),
        Provider(
            "tensorrt-rtx",
            "NvTensorRTRTXExecutionProvider",
            "cpu",  # TopK runs on the host there: the state may as well come along
            "tensorrt-rtx",
            _tensorrt_rtx,
            "onnxruntime_ep_nv_tensorrt_rtx",
            cache=_tensorrt_rtx_cache,
        ),
    )
}
AUTO_ORDER = ("cuda", "cpu")  # what "auto" tries; the others round differently or build for minutes


def onnxruntime() -> types.ModuleType:
    """Imports ONNX Runtime on first use. Raises ProviderError if it is not installed."""
    try:
        return importlib.import_module("onnxruntime")
    except ImportError as error:
        raise ProviderError(
            f"ONNX Runtime cannot be imported ({error}): pip install 'captioning-engine[cpu]' "
            "(or [gpu] in its place on a machine with an NVIDIA GPU)"
        ) from error


def find_provider(name: str) -> Provider:
    """Returns the provider of a name.

    Raises ProviderError for an unknown name or a provider that is not there, saying which are and how to get it.
    """
    if name not in PROVIDERS:
        raise ProviderError(f"provider {name!r} is unknown: choose auto, {', '.join(PROVIDERS)}")
    provider = PROVIDERS[name]
    if not is_available(provider):
        raise ProviderError(_why_missing(provider))
    return provider


def available_providers() -> list[str]:
    """Returns the names of the providers that can run here."""

    def runs(provider: Provider) -> bool:
        try:
            return is_available(provider)
        except ProviderError:  # a broken plug-in speaks up when it is asked for by name
            return False

    return [name for name, provider in PROVIDERS.items() if runs(provider)]


def is_available(provider: Provider) -> bool:
    """Says whether ONNX Runtime holds the provider, or its plug-in finds a device it can use."""
    return provider.ort_name in onnxruntime().get_available_providers() or bool(plug_in_devices(provider))


def plug_in_devices(provider: Provider) -> tuple[Any, ...]:
    """Registers a provider's plug-in library, once in a process, and returns the devices it offers."""
    with _registering:
        return _register(provider)


_registering = threading.Lock()


@functools.cache  # ONNX Runtime refuses to register a library twice
def _register(provider: Provider) -> tuple[Any, ...]:
    if provider.plug_in is None:
        return ()
    try:
        plug_in = importlib.import_module(provider.plug_in)
    except ImportError:
        return ()
    ort = onnxruntime()
    try:
        ort.register_execution_provider_library(provider.ort_name, plug_in.get_library_path())
    except (AttributeError, RuntimeError, OSError) as error:
        raise ProviderError(f"the plug-in of provider {provider.name!r} cannot be loaded: {error}") from error
    devices = (device for device in ort.get_ep_devices() if device.ep_name == provider.ort_name)
    wanted = "CPU" if provider.name == "openvino" else "GPU"  # an Intel machine may offer its GPU and NPU too
    return tuple(device for device in devices if device.device.type.name == wanted)


def plug_in_version(provider: Provider) -> str | None:
    """Returns the version of a provider's plug-in, if it is installed and says one."""
    if provider.plug_in is None:
        return None
    try:
        return str(importlib.import_module(provider.plug_in).__version__)
    except (ImportError, AttributeError):
        return None


def _why_missing(provider: Provider) -> str:
    there = ", ".join(available_providers())
    if provider.plug_in is not None and importlib.util.find_spec(provider.plug_in):
        why = f"its plug-in {provider.plug_in} is installed but offers no device on this machine"
        if provider.name == "openvino":
            why += (
                " (it serves Intel processors only; the package onnxruntime-openvino, in place of onnxruntime, all x86)"
            )
    else:
        why = f"pip install 'captioning-engine[{provider.extra}]' brings it"
        if provider.extra == "gpu":
            why += ", in place of [cpu]"
    return f"provider {provider.name!r} is not available here (available: {there}): {why}"
