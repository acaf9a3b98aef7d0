"""An ONNX Runtime whose CUDA device is host memory with addresses of its own, and which enforces what a real one does.

Graphs run in the real CPU provider. A run of a new gpu_graph_id is captured by the thread it runs on: from then on that
thread replays it with the addresses, shapes and host values of the capture, whatever is bound. While one thread
captures, no other may touch the device. Freed or foreign memory cannot be read. Fresh memory holds no numbers.
"""

import threading
import time
import types
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from engine.runtime.cuda.device import ALIGNMENT

GAP = 4096
BASE = 1 << 40


@dataclass(frozen=True)
class Bound:
    """A binding of a name to device memory, or to an array on the host."""

    dtype: Any
    shape: tuple[int, ...]
    address: int = 0
    host: np.ndarray | None = None

    @property
    def size(self) -> int:
        return int(np.prod(self.shape) * np.dtype(self.dtype).itemsize)


class FakeCuda:
    """Stands in for the module `onnxruntime`."""

    def __init__(self, device_id: int = 0) -> None:
        self.device_id = device_id
        self.memory: dict[int, np.ndarray] = {}
        self.next_address = BASE
        self.runs: list[str] = []  # "run", "capture" or "replay" with the graph's number
        self.uploads: list[int] = []  # bytes
        self.downloads: list[int] = []
        self._inside = 0
        self._capturing = False
        self._lock = threading.Lock()
        runtime = self

        class OrtValue:
            def __init__(self, shape: list[int], dtype: Any, device: str, number: int) -> None:
                assert (device, number) == ("cuda", runtime.device_id), "state has to live on the device"
                self._shape, self._dtype = list(shape), np.dtype(dtype)
                size = int(np.prod(shape)) * self._dtype.itemsize
                with runtime.use():
                    self._address = runtime.next_address
                    runtime.next_address += -(-size // GAP) * GAP + GAP
                    runtime.memory[self._address] = np.full(size, 0xFF, np.uint8)

            def __del__(self) -> None:
                runtime.memory.pop(self._address, None)

            ortvalue_from_shape_and_type = classmethod(
                lambda cls, shape, dtype, device, number: cls(shape, dtype, device, number)
            )

            @classmethod
            def ortvalue_from_numpy(cls, array: np.ndarray, device: str, number: int) -> "OrtValue":
                value = cls(list(array.shape), array.dtype, device, number)
                value.update_inplace(array)
                return value

            def data_ptr(self) -> int:
                return self._address

            def shape(self) -> list[int]:
                return self._shape

            def numpy(self) -> np.ndarray:
                with runtime.use():
                    data = runtime.memory[self._address]
                    runtime.downloads.append(data.size)
                    return np.array(data.view(self._dtype).reshape(self._shape))

            def update_inplace(self, array: np.ndarray) -> None:
                with runtime.use():
                    data = runtime.memory[self._address]
                    assert array.flags.c_contiguous
                    assert array.dtype == self._dtype
                    assert array.nbytes == data.size, "ONNX Runtime copies whole tensors alone"
                    runtime.uploads.append(data.size)
                    data[:] = array.reshape(-1).view(np.uint8)

        class RunOptions:
            def __init__(self) -> None:
                self.entries: dict[str, str] = {}

            def add_run_config_entry(self, key: str, value: str) -> None:
                self.entries[key] = value

            def get_run_config_entry(self, key: str) -> str:
                return self.entries[key]

        self.OrtValue, self.RunOptions = OrtValue, RunOptions

    @contextmanager
    def use(self, *, capture: bool = False) -> Iterator[None]:
        """Any use of the device: an error where another thread captures meanwhile, as CUDA's global mode has it."""
        with self._lock:
            if self._capturing or (capture and self._inside):
                raise RuntimeError("CUDA error 900: operation not permitted while a stream is capturing")
            self._inside += 1
            self._capturing = capture
        try:
            if capture:
                time.sleep(0.002)
            yield
        finally:
            with self._lock:
                self._inside -= 1
                self._capturing &= not capture

    def view(self, bound: Bound) -> np.ndarray:
        """Returns device memory as an array; it must lie within one tensor."""
        if bound.host is not None:
            return bound.host
        # a copy, in whose making no garbage is collected: that may free memory, and a list of the items would notice
        for base, data in self.memory.copy().items():
            if base <= bound.address and bound.address + bound.size <= base + data.size:
                part = data[bound.address - base : bound.address - base + bound.size]
                return np.asarray(part.view(bound.dtype).reshape(bound.shape))
        raise RuntimeError(f"illegal memory access at {bound.address:#x}")


class FakeSession:
    """A session on the fake device. host: the inputs that a kernel reads on the host, k of TopK."""

    def __init__(self, cuda: FakeCuda, real: Any, *, graphs: bool = False, host: tuple[str, ...] = ("k",)) -> None:
        self.cuda = cuda
        self.real = real
        self.graphs = graphs
        self.host = host
        self.captured: dict[tuple[int, int], tuple[dict[str, Bound], dict[str, Bound]]] = {}
        self.names = [value.name for value in real.get_outputs()]
        self.get_inputs = real.get_inputs

    def io_binding(self) -> Any:
        made = types.SimpleNamespace(session=self, inputs={}, outputs={})

        def bind(side: dict[str, Bound]) -> Any:
            def bind_side(name: str, device: str, number: int, dtype: Any, shape: list[int], address: int) -> None:
                assert (device, number) == ("cuda", self.cuda.device_id)
                assert all(isinstance(extent, int) for extent in shape)
                assert address % ALIGNMENT == 0, f"kernels read several numbers at once, but {name} is not aligned"
                side[name] = Bound(dtype, tuple(shape), address)

            return bind_side

        def bind_cpu_input(name: str, array: np.ndarray) -> None:
            made.inputs[name] = Bound(array.dtype, array.shape, host=array)

        made.bind_input, made.bind_output = bind(made.inputs), bind(made.outputs)
        made.bind_cpu_input = bind_cpu_input
        return made

    def release_captured_graph(self, number: int) -> None:
        self.captured.pop((threading.get_ident(), number), None)

    def run_with_iobinding(self, binding: Any, options: Any = None) -> None:
        assert binding.session is self
        number = int(options.entries["gpu_graph_id"]) if options is not None else 0
        if not self.graphs or number == -1:
            with self.cuda.use():
                self.cuda.runs.append("run")
                self._compute(binding.inputs, binding.outputs)
            return
        key = threading.get_ident(), number
        if key in self.captured:
            with self.cuda.use():
                self.cuda.runs.append(f"replay {number}")
                self._compute(*self.captured[key])
            return
        for name, bound in {**binding.inputs, **binding.outputs}.items():
            assert (bound.host is not None) == (name in self.host), f"{name} has to lie on the device to be captured"
        with self.cuda.use(capture=True):
            self.cuda.runs.append(f"capture {number}")
            frozen = {
                name: bound if bound.host is None else Bound(bound.dtype, bound.shape, host=bound.host.copy())
                for name, bound in binding.inputs.items()
            }
            for _ in range(3):  # the runs before the capture, and the first replay
                self._compute(frozen, dict(binding.outputs))
        self.captured[key] = frozen, dict(binding.outputs)

    def _compute(self, inputs: dict[str, Bound], outputs: dict[str, Bound]) -> None:
        for name, source in inputs.items():
            for other, target in outputs.items():
                apart = source.host is not None or (
                    source.address + source.size <= target.address or target.address + target.size <= source.address
                )
                assert apart, f"{name} is read and {other} written in the same memory"
        fed = {name: self.cuda.view(bound) for name, bound in inputs.items()}
        for name, result in zip(self.names, self.real.run(self.names, fed), strict=True):
            assert result.shape == outputs[name].shape
            assert result.dtype == np.dtype(outputs[name].dtype)
            self.cuda.view(outputs[name])[...] = result
