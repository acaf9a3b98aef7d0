"""Facts about the NVIDIA driver and TensorRT, read through ctypes without NVIDIA's Python packages."""

import ctypes
import importlib.util
import sys
from contextlib import suppress
from pathlib import Path

DRIVER = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
TENSORRT = ("libnvinfer.so.10", "libnvinfer_plugin.so.10", "libnvonnxparser.so.10")
"""The TensorRT libraries that ONNX Runtime needs, each after those it depends on."""


def gpu_name(device_id: int) -> str | None:
    """Returns name and compute capability of a GPU, as in "NVIDIA H100 80GB HBM3 (9.0)"; None without a GPU.

    device_id is CUDA's number in this process; CUDA_VISIBLE_DEVICES may have renumbered the GPUs.
    """
    try:
        driver = ctypes.CDLL(DRIVER)
    except OSError:
        return None
    device, name = ctypes.c_int(), ctypes.create_string_buffer(256)
    major, minor = ctypes.c_int(), ctypes.c_int()
    failed = (
        driver.cuInit(0)
        or driver.cuDeviceGet(ctypes.byref(device), device_id)
        or driver.cuDeviceGetName(name, len(name), device)
        or driver.cuDeviceGetAttribute(ctypes.byref(major), 75, device)  # compute capability, major
        or driver.cuDeviceGetAttribute(ctypes.byref(minor), 76, device)
    )
    if failed:
        return None
    return f"{name.value.decode(errors='replace')} ({major.value}.{minor.value})"


def driver_version() -> str | None:
    """Returns the CUDA version that the driver supports, as in "13.0"; None without a driver."""
    try:
        driver = ctypes.CDLL(DRIVER)
    except OSError:
        return None
    version = ctypes.c_int()
    if driver.cuDriverGetVersion(ctypes.byref(version)) != 0:
        return None
    return f"{version.value // 1000}.{version.value % 1000 // 10}"


def load_tensorrt() -> str | None:
    """Loads TensorRT's libraries, from its wheel if that is installed, and returns their version.

    Returns None if they cannot be found or do not report a version.
    """
    spec = importlib.util.find_spec("tensorrt_libs")
    folders = [Path(place) for place in spec.submodule_search_locations or ()] if spec else []
    loaded = {}
    for name in TENSORRT:
        for path in (*(str(folder / name) for folder in folders), name):
            with suppress(OSError):
                loaded[name] = ctypes.CDLL(path, mode=ctypes.RTLD_GLOBAL)
                break
    try:
        return str(loaded[TENSORRT[0]].getInferLibVersion())
    except (KeyError, AttributeError):
        return None
