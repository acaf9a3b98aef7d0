"""The facts about this machine that speed depends on: processor, cores, GPUs, versions. Measures nothing."""

import importlib.util
import os
import platform
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import PIL

from engine.bundle.bundle import MANIFEST_FILE, Bundle, digest, sha256
from engine.runtime.cuda.nvidia import driver_version, gpu_name
from engine.runtime.options import cores
from engine.runtime.providers import PROVIDERS, Provider, built_in_providers, onnxruntime, plug_in_version

CPUINFO = Path("/proc/cpuinfo")
NVIDIA = Path("/proc/driver/nvidia/gpus")
NVIDIA_PROVIDERS = ("cuda", "tensorrt", "tensorrt-rtx")
NVIDIA_PACKAGES = ("nvidia-", "tensorrt")  # prefixes of packages with compute libraries
ON_X86 = ("flags", "cpu family", "model", "stepping")
ON_ARM = ("Features", "CPU implementer", "CPU architecture", "CPU variant", "CPU part", "CPU revision")


def fingerprint(bundle: Bundle) -> dict[str, Any]:
    """Returns everything that a bundle's measured speed depends on, as JSON values; if one changes, measure again.

    Raises ProviderError if ONNX Runtime is not installed.
    """
    return {
        "bundle": sha256(bundle.path / MANIFEST_FILE),  # the manifest has the SHA-256 of every other file
        "versions": versions() | optional_packages(),
        "providers": installed_providers(),
        "visible_gpus": os.environ.get("CUDA_VISIBLE_DEVICES"),
        "processor": processor(),
        "instructions": instructions(),
        "cores": cores(),
        "gpus": gpus(),
    }


def versions() -> dict[str, str]:
    """Returns the versions of the packages that compute."""
    from importlib import metadata  # takes 40 ms to import; only tuned captioners need it

    try:
        engine = metadata.version("captioning-engine")
    except metadata.PackageNotFoundError:
        engine = "not installed (running from its sources)"
    return {
        "engine": engine,
        "onnxruntime": onnxruntime().__version__,
        "numpy": np.__version__,
        "Pillow": PIL.__version__,
    }


def optional_packages() -> dict[str, str]:
    """Returns the versions of those packages that are installed for faster image reading, and of the plug-ins."""
    from importlib import metadata

    found = {}
    plug_ins = (provider.package for provider in PROVIDERS.values() if provider.package)
    for package in ("simplejpeg", "cykooz-resizer", *plug_ins):
        with suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    return found


def installed_providers() -> list[str]:
    """Returns ONNX Runtime's built-in providers and the installed plug-ins, without loading them or finding devices."""
    plug_ins = [p.plug_in for p in PROVIDERS.values() if p.plug_in and importlib.util.find_spec(p.plug_in)]
    return [*built_in_providers(), *plug_ins]


def processor() -> str:
    """Returns the processor's model."""
    return _cpuinfo().get("model name") or platform.processor() or platform.machine()


def instructions() -> str:
    """Returns a digest of the processor's features: virtual machines report one name for many models.

    On Linux these are the flags on x86, and the features, implementer and part numbers on ARM.
    """
    said = {name: value for name, value in _cpuinfo().items() if name in ON_X86 + ON_ARM}
    return digest(repr(sorted(said.items())))[:16]


def runtime_facts(used: Iterable[Provider], device_id: int) -> dict[str, Any]:
    """Returns everything that affects the numbers that these providers compute, as JSON values.

    It takes a few milliseconds for the CPU. code: a digest of the engine's own runtime modules.
    """
    listed, nvidia = list(used), {}
    if any(provider.name in NVIDIA_PROVIDERS for provider in listed):
        nvidia = {"gpu": gpu_name(device_id), "cuda": driver_version(), "libraries": _nvidia_libraries()}
    code = b"".join(path.read_bytes() for path in sorted((Path(__file__).parents[1] / "runtime").rglob("*.py")))
    return {
        "code": digest(code)[:16],
        "onnxruntime": onnxruntime().__version__,
        "plug_ins": {provider.name: plug_in_version(provider) for provider in listed if provider.plug_in},
        "processor": processor(),
        "instructions": instructions(),
        **nvidia,
    }


def _nvidia_libraries() -> dict[str, str]:
    from importlib import metadata

    found = {str(each.metadata["Name"]).lower(): each.version for each in metadata.distributions()}
    return {name: version for name, version in sorted(found.items()) if name.startswith(NVIDIA_PACKAGES)}


def has_vnni() -> bool | None:
    """Returns whether the processor sums 8-bit products without intermediate saturation; None if unknown.

    Intel and AMD processors with VNNI do. Older ones sum uint8 x int8 products in 16 bits, which 8-bit weights
    overflow. ARM never saturates.
    """
    if platform.machine().lower() in ("arm64", "aarch64"):
        return True
    flags = _cpuinfo().get("flags", "").split()
    return bool({"avx512_vnni", "avx_vnni"}.intersection(flags)) if flags else None


def gpus() -> list[str]:
    """Returns the names of the GPUs that ONNX Runtime or the NVIDIA driver reports."""
    ort = onnxruntime()
    own = built_in_providers()  # a plug-in's devices are listed only after it is loaded
    devices = [each.device for each in ort.get_ep_devices() if each.ep_name in own]
    found = [f"{device.vendor} {device.device_id:#x}" for device in devices if device.type.name != "CPU"]
    with suppress(OSError):
        for folder in sorted(NVIDIA.iterdir()):
            found += [line for line in (folder / "information").read_text().splitlines() if line.startswith("Model")]
    return sorted(found)


def _cpuinfo() -> dict[str, str]:
    """Returns what Linux reports about the first processor."""
    facts: dict[str, str] = {}
    with suppress(OSError), CPUINFO.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            name, colon, value = line.partition(":")
            if not colon:
                break
            facts[name.strip()] = value.strip()
    return facts
