"""One decode of one batch on a session: the state between the steps, and the memory and bindings of each run.

Owns no session and shares nothing: threads run a session side by side, each with its own Steps. Knows nothing of how
the search chooses.
"""

from dataclasses import dataclass, field
from math import isnan
from typing import Any

import numpy as np

from engine.errors import EngineError
from engine.runtime.providers import onnxruntime


class Steps:
    """A StepModel whose hidden and cell never leave the provider's device.

    Two slots of state take turns, so that no run reads and writes the same memory. A run reads its slot whole and
    gathers its rows: the shape it reads stays the same when rows leave. Each shape is bound once.
    """

    def __init__(self, graphs: Any, features: np.ndarray) -> None:
        self.images = len(features)
        self._provider = graphs.provider.name
        units = graphs.bundle.manifest.units
        self._slots = _Slot(units, graphs.device), _Slot(units, graphs.device)
        self._current = 0  # the slot that holds the state
        self._session = graphs.session("search_step")
        self._bound: dict[tuple[int, ...], _Bound] = {}
        session = graphs.session("decoder_init")
        binding = session.io_binding()
        binding.bind_cpu_input("features", features)
        self._slots[0].reserve(self.images)
        self._slots[0].bind_outputs(binding, ("hidden", "cell"), self.images)
        session.run_with_iobinding(binding)

    def step(
        self, token_ids: np.ndarray, parent_rows: np.ndarray, bias: np.ndarray, k: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Feeds a token to each row: see StepModel. The returned arrays are overwritten by a later step."""
        rows = len(token_ids)
        if self._slots[1 - self._current].reserve(rows):
            self._bound.clear()
        key = (self._current, rows, k, len(bias))
        bound = self._bound.get(key)
        if bound is None:
            bound = self._bound[key] = self._bind(rows, k)
        bound.token_ids[:] = token_ids
        bound.parent_rows[:] = parent_rows
        if bias is not bound.bias:
            bound.bias = bias  # kept alive: the binding holds its address alone
            bound.binding.bind_cpu_input("bias", bias)
        self._session.run_with_iobinding(bound.binding)
        self._current = 1 - self._current
        if isnan(bound.best.sum()):  # where the best is no number, none of its row is
            raise EngineError(
                f"the model computed no numbers (NaN) on provider {self._provider!r}: its features are no numbers, or "
                "the provider or precision is broken here; try provider='cpu'"
            )
        return bound.ids, bound.log_probs

    def _bind(self, rows: int, k: int) -> "_Bound":
        binding = self._session.io_binding()
        bound = _Bound(
            binding=binding,
            token_ids=np.empty(rows, np.int64),
            parent_rows=np.empty(rows, np.int64),
            k=np.array([k], np.int64),
            ids=np.empty((rows, k), np.int64),
            log_probs=np.empty((rows, k), np.float32),
        )
        for name in ("token_ids", "parent_rows", "k"):
            binding.bind_cpu_input(name, getattr(bound, name))
        for name in ("ids", "log_probs"):
            array = getattr(bound, name)
            binding.bind_output(name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)
        self._slots[self._current].bind_inputs(binding)
        self._slots[1 - self._current].bind_outputs(binding, ("next_hidden", "next_cell"), rows)
        return bound


@dataclass(slots=True)
class _Bound:
    """A binding for one shape and direction, with the host memory that it reads and writes."""

    binding: Any
    token_ids: np.ndarray  # (rows,)
    parent_rows: np.ndarray  # (rows,)
    k: np.ndarray  # (1,)
    ids: np.ndarray  # (rows, k)
    log_probs: np.ndarray  # (rows, k)
    best: np.ndarray = field(init=False)  # (rows,) the first column of log_probs
    bias: np.ndarray | None = None

    def __post_init__(self) -> None:
        self.best = self.log_probs[:, 0]


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
