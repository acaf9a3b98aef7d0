"""What the NVIDIA driver and TensorRT say of themselves, asked without any package of NVIDIA's. Knows no graphs."""

import ctypes
import importlib.util
import sys
from contextlib import suppress
from pathlib import Path

DRIVER = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
TENSORRT = ("libnvinfer.so.10", "libnvinfer_plugin.so.10", "libnvonnxparser.so.10")
"""TensorRT's libraries that ONNX Runtime is built for, in the order in which one needs the other."""


def gpu_name(device_id: int) -> str | None:
    """Returns name and compute capability of a GPU, as in "NVIDIA H100 80GB HBM3 (9.0)"; None where there is none.

    It is the GPU that CUDA numbers so in this process, which CUDA_VISIBLE_DEVICES may have renumbered.
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
    """Returns the CUDA version that the driver serves, as in "13.0"; None where there is no driver."""
    try:
        driver = ctypes.CDLL(DRIVER)
    except OSError:
        return None
    version = ctypes.c_int()
    if driver.cuDriverGetVersion(ctypes.byref(version)) != 0:
        return None
    return f"{version.value // 1000}.{version.value % 1000 // 10}"


def load_tensorrt() -> str | None:
    """Loads TensorRT's libraries, from the wheel that brings them if it is installed, and returns their version.

    None where they are not to be found, or give no version.
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
