"""One decode of one batch on a session: the state between the steps, and the memory and bindings of each run.

Owns no session and shares nothing: threads run a session side by side, each with its own Steps. Knows nothing of how
the search chooses.
"""

from dataclasses import dataclass
from math import inf
from typing import Any

import numpy as np

from engine.decoding.model import StepModel
from engine.errors import EngineError
from engine.runtime.providers import onnxruntime

TEMPERATURES = 1e-30, 1e30
"""Beyond these single precision knows only 0 and infinity; the distribution is as sharp or as flat as it can be."""


class Steps(StepModel):
    """A StepModel whose hidden and cell never leave the provider's device.

    Two slots of state take turns, so that no run reads and writes the same memory. A run reads its slot whole and
    gathers its rows, so the shape that it reads stays the same when rows leave. Each shape is bound once.
    """

    def __init__(self, graphs: Any, features: np.ndarray) -> None:
        self.images = len(features)
        self._graphs = graphs
        units = graphs.bundle.manifest.units
        self._slots = _Slot(units, graphs.device), _Slot(units, graphs.device)
        self._current = 0  # the slot that holds the state
        self._bound: dict[tuple[str, int, int, int, int], _Bound] = {}
        session = graphs.session("decoder_init")
        binding = session.io_binding()
        binding.bind_cpu_input("features", features)
        self._slots[0].reserve(self.images)
        self._slots[0].bind_outputs(binding, ("hidden", "cell"), self.images)
        session.run_with_iobinding(binding)

    def step(
        self, token_ids: np.ndarray, parent_rows: np.ndarray, bias: np.ndarray, k: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Returns the k best next tokens: see StepModel."""
        return self._run(self._feed("search_step", token_ids, parent_rows, bias, k))

    def best(self, token_ids: np.ndarray, parent_rows: np.ndarray, bias: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns the best next token: see StepModel."""
        return self._run(self._feed("greedy_step", token_ids, parent_rows, bias))

    def draw(
        self,
        token_ids: np.ndarray,
        parent_rows: np.ndarray,
        bias: np.ndarray,
        temperature: float,
        uniforms: np.ndarray,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Returns a next token drawn from the whole distribution: see StepModel."""
        bound = self._feed("sample_step", token_ids, parent_rows, bias)
        bound.inputs["uniforms"][:] = uniforms
        bound.inputs["temperature"][0] = min(max(temperature, TEMPERATURES[0]), TEMPERATURES[1])
        return self._run(bound)

    def _feed(
        self, graph: str, token_ids: np.ndarray, parent_rows: np.ndarray, bias: np.ndarray, k: int = 0
    ) -> "_Bound":
        """Returns what runs a graph, with these inputs in place."""
        rows = len(token_ids)
        if self._slots[1 - self._current].reserve(rows):
            self._bound.clear()
        key = (graph, self._current, rows, k, len(bias))
        bound = self._bound.get(key)
        if bound is None:
            bound = self._bound[key] = self._bind(graph, rows, k)
        bound.inputs["token_ids"][:] = token_ids
        bound.inputs["parent_rows"][:] = parent_rows
        if bias is not bound.bias:
            bound.bias = bias  # kept alive: the binding holds its address alone
            bound.binding.bind_cpu_input("bias", bias)
        return bound

    def _run(self, bound: "_Bound") -> tuple[np.ndarray, np.ndarray]:
        bound.session.run_with_iobinding(bound.binding)
        self._current = 1 - self._current
        if not bound.best.sum() < inf:  # where the best is no number, none of its row is
            raise EngineError(
                f"the model computed no numbers (NaN) on provider {self._graphs.provider.name!r}: its features are no "
                "numbers, or the provider or precision is broken here; try provider='cpu'"
            )
        return bound.ids, bound.values

    def _bind(self, graph: str, rows: int, k: int) -> "_Bound":
        session = self._graphs.session(graph)
        binding = session.io_binding()
        inputs: dict[str, np.ndarray] = {"token_ids": np.empty(rows, np.int64), "parent_rows": np.empty(rows, np.int64)}
        if graph == "search_step":
            inputs["k"] = np.array([k], np.int64)
        elif graph == "sample_step":
            inputs |= {"uniforms": np.empty(rows, np.float32), "temperature": np.empty(1, np.float32)}
        for name, array in inputs.items():
            binding.bind_cpu_input(name, array)
        shape = (rows, k) if graph == "search_step" else (rows,)
        ids, values = np.empty(shape, np.int64), np.empty(shape, np.float32)
        binding.bind_output("ids", "cpu", 0, np.int64, shape, ids.ctypes.data)
        name = "logits" if graph == "greedy_step" else "log_probs"
        binding.bind_output(name, "cpu", 0, np.float32, shape, values.ctypes.data)
        self._slots[self._current].bind_inputs(binding)
        self._slots[1 - self._current].bind_outputs(binding, ("next_hidden", "next_cell"), rows)
        return _Bound(session, binding, inputs, ids, values, values.reshape(rows, -1)[:, 0])


@dataclass(slots=True)
class _Bound:
    """A binding for one graph, shape and direction, with the host memory that it reads and writes."""

    session: Any
    binding: Any
    inputs: dict[str, np.ndarray]
    ids: np.ndarray  # (rows, k) or (rows,), as values
    values: np.ndarray
    best: np.ndarray  # (rows,) the first of each row's values
    bias: np.ndarray | None = None


class _Slot:
    """Hidden and cell of some rows in device memory; grows, but never shrinks."""

    def __init__(self, units: int, device: tuple[str, int]) -> None:
        self._units = units
        self._device = device
        self._capacity = 0
        self._memory: tuple[Any, ...] = ()  # hidden, cell as onnxruntime.OrtValue

    def reserve(self, rows: int) -> bool:
        """Makes room; says whether the memory has moved."""
        if rows <= self._capacity:
            return False
        allocate = onnxruntime().OrtValue.ortvalue_from_shape_and_type
        self._memory = tuple(allocate([rows, self._units], np.float32, *self._device) for _ in range(2))
        self._capacity = rows
        return True

    def bind_inputs(self, binding: Any) -> None:
        for name, memory in zip(("hidden", "cell"), self._memory, strict=True):
            binding.bind_input(name, *self._device, np.float32, [self._capacity, self._units], memory.data_ptr())

    def bind_outputs(self, binding: Any, names: tuple[str, str], rows: int) -> None:
        for name, memory in zip(names, self._memory, strict=True):
            binding.bind_output(name, *self._device, np.float32, [rows, self._units], memory.data_ptr())
