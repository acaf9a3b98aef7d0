"""A CUDA device: its memory, features that stay in it, and the lock that captures of CUDA graphs need.

Knows nothing of how a search chooses.
"""

import contextlib
import threading
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np

from engine.runtime.providers import onnxruntime

_EXCLUSIVE = threading.RLock()
"""While a CUDA graph is captured, no other thread may allocate, copy or wait on the device, so all use this lock."""
MOST_GRAPHS = 256
"""Most CUDA graphs of one decode, since each uses memory. Further shapes run without a graph."""
ALIGNMENT = 256  # bytes, like cudaMalloc: kernels may read several numbers at once
NO_GRAPH = -1  # ONNX Runtime's gpu_graph_id for a run that is neither captured nor replayed


@dataclass(frozen=True, slots=True)
class Device:
    """A CUDA device, as used by the graphs of one bundle.

    session(graph) returns the onnxruntime.InferenceSession of a graph. cuda_graphs: whether the sessions were opened so
    that each run of a new gpu_graph_id is captured, and replayed from then on.
    """

    session: Callable[[str], Any]
    provider: str
    number: int
    cuda_graphs: bool

    def allocate(self, shape: tuple[int, ...], dtype: Any) -> Any:
        """Returns an onnxruntime.OrtValue on the device, not initialised."""
        return onnxruntime().OrtValue.ortvalue_from_shape_and_type(list(shape), dtype, "cuda", self.number)

    def upload(self, array: np.ndarray) -> Any:
        """Returns an onnxruntime.OrtValue on the device that holds a copy of an array."""
        return onnxruntime().OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array), "cuda", self.number)

    def exclusive(self) -> AbstractContextManager[Any]:
        """Returns the context manager that every use of the device must run in."""
        return _EXCLUSIVE if self.cuda_graphs else contextlib.nullcontext()

    def bind_input(self, binding: Any, name: str, dtype: Any, shape: tuple[int, ...], address: int) -> None:
        """Binds an input of a run to device memory."""
        binding.bind_input(name, "cuda", self.number, dtype, list(shape), address)

    def bind_output(self, binding: Any, name: str, dtype: Any, shape: tuple[int, ...], address: int) -> None:
        """Binds an output of a run to device memory."""
        binding.bind_output(name, "cuda", self.number, dtype, list(shape), address)


class Parcel:
    """Named arrays that are copied between host and device in one piece; on the device each is a separate tensor."""

    def __init__(self, device: Device, **parts: tuple[Any, tuple[int, ...]]) -> None:
        """Parts are given as dtype and shape."""
        self._parts: dict[str, tuple[Any, tuple[int, ...], int, int]] = {}  # dtype, shape, begin, end
        end = 0
        for name, (dtype, shape) in parts.items():
            begin = -(-end // ALIGNMENT) * ALIGNMENT
            end = begin + int(np.prod(shape)) * np.dtype(dtype).itemsize
            self._parts[name] = dtype, shape, begin, end
        self._device = device
        self._host = np.zeros(end, np.uint8)
        self._there = device.allocate((end,), np.uint8)
        self.arrays = self._split(self._host)

    def bind_inputs(self, binding: Any) -> None:
        """Binds each part as the input of its name."""
        for name, (dtype, shape, begin, _) in self._parts.items():
            self._device.bind_input(binding, name, dtype, shape, self._there.data_ptr() + begin)

    def bind_outputs(self, binding: Any) -> None:
        """Binds each part as the output of its name."""
        for name, (dtype, shape, begin, _) in self._parts.items():
            self._device.bind_output(binding, name, dtype, shape, self._there.data_ptr() + begin)

    def send(self) -> None:
        """Copies `arrays` to the device."""
        self._there.update_inplace(self._host)

    def fetch(self) -> dict[str, np.ndarray]:
        """Copies the parts back from the device; the caller owns the arrays."""
        return self._split(self._there.numpy())

    def _split(self, data: np.ndarray) -> dict[str, np.ndarray]:
        return {
            name: data[begin:end].view(dtype).reshape(shape) for name, (dtype, shape, begin, end) in self._parts.items()
        }


@dataclass(slots=True)
class GraphIds:
    """Unique ids for the CUDA graphs of one session; threads share it."""

    _next: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def options(self, captured: int) -> Any:
        """Returns onnxruntime.RunOptions with a new graph id, or with none once too many graphs are captured."""
        with self._lock:
            self._next += captured < MOST_GRAPHS
            number = self._next if captured < MOST_GRAPHS else NO_GRAPH
        options = onnxruntime().RunOptions()
        options.add_run_config_entry("gpu_graph_id", str(number))
        return options


class DeviceFeatures:
    """Features float32 (images, *feature_shape) in device memory; numpy reads them as an array.

    Slices share the memory, which is released when the last of them is gone.
    """

    def __init__(self, device: Device, memory: Any, images: int, first: int = 0, owner: Any = None) -> None:
        """The memory is an OrtValue (at least first + images, *feature_shape); owner lives as long as the features."""
        self._device = device
        self._memory = memory
        self._images = images
        self._first = first
        self.owner = owner

    @property
    def shape(self) -> tuple[int, ...]:
        """(images, *feature_shape)."""
        return self._images, *self._memory.shape()[1:]

    @property
    def address(self) -> int:
        """Device address of the first image's features."""
        return int(self._memory.data_ptr()) + 4 * self._first * prod(self.shape[1:])

    def __len__(self) -> int:
        return self._images

    def __getitem__(self, images: slice) -> "DeviceFeatures":
        start, stop, step = images.indices(self._images)
        if step != 1:
            raise IndexError(
                "features on a device can only be sliced in steps of 1; copy them to the host first with np.asarray()"
            )
        return DeviceFeatures(self._device, self._memory, max(0, stop - start), self._first + start, self.owner)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        with self._device.exclusive():
            host = self._memory.numpy()
        return np.array(host[self._first : self._first + self._images], dtype=dtype)

    def followed_by(self, other: "DeviceFeatures") -> "DeviceFeatures | None":
        """Returns both as one if the other follows directly in the same memory, else None."""
        if other._memory is not self._memory or other._first != self._first + self._images:
            return None
        return DeviceFeatures(self._device, self._memory, self._images + other._images, self._first, self.owner)


def joined(features: Iterable[np.ndarray | DeviceFeatures]) -> list[np.ndarray | DeviceFeatures]:
    """Returns the same features in order, merging those that are adjacent in device memory."""
    pieces: list[np.ndarray | DeviceFeatures] = []
    for part in features:
        last = pieces[-1] if pieces else None
        if isinstance(last, DeviceFeatures) and isinstance(part, DeviceFeatures) and (both := last.followed_by(part)):
            pieces[-1] = both
        else:
            pieces.append(part)
    return pieces
