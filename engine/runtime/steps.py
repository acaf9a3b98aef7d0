"""One decode of one batch on a session: the state between the steps, and the memory and bindings of each run.

Owns no session: threads run one side by side, each with a lane of its own, which the next decode takes over. Knows
nothing of how the search chooses.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from engine.decoding.step_model import StepModel
from engine.runtime.lanes import Lanes
from engine.runtime.providers import onnxruntime

MOST_BOUND = 1000
"""Bindings that are kept: a decode that images join and leave without end meets every shape."""
MOST_KEPT = 4096
"""Candidates of a binding that outlives its decode: a larger one holds memory, and takes no time beside its run."""
NO_BIAS = np.zeros((1, 1), np.float32)
"""Takes the place of a bias that is let go."""
TEMPERATURES = 1e-30, 1e30
"""Beyond these single precision knows only 0 and infinity; the distribution is as sharp or as flat as it can be."""

Key = tuple[str, int, int, int, int]
"""Graph, slot that it reads, rows, k, and rows of its bias: what decides a binding."""


def takes_one_temperature(sample_step: Any) -> bool:
    """Says whether a session's graph has one temperature for all rows, as those exported before had."""
    return any(value.name == "temperature" and value.shape == [1] for value in sample_step.get_inputs())


def too_few_temperatures(sample_step: Any, temperatures: np.ndarray) -> bool:
    """Says whether a session's graph has one temperature where those of the rows differ."""
    return bool((temperatures != temperatures[0]).any()) and takes_one_temperature(sample_step)


class Steps(StepModel):
    """A StepModel in the host's memory, which only providers without memory of their own read as it is: see DECODERS.

    Two slots of state take turns, so that no run reads and writes the same memory. A run reads its slot whole and
    gathers its rows, so the shape that it reads stays the same when rows leave. Each shape is bound once.
    """

    def __init__(self, lanes: "Lanes[StepLane]", features: np.ndarray, *, capacity: int = 0) -> None:
        """Capacity: room for so many rows and admitted images at once, where any are to be admitted."""
        self.images = len(features)
        self._lane = lanes.lend(self)
        self._large: dict[Key, _Bound] = {}  # what the lane does not keep
        self._current = 0  # the slot that holds the state
        self._held = 0  # rows of it that are in use
        for slot in self._lane.slots:
            self._lane.reserve(slot, capacity or self.images)
        if self.images:
            self.admit([features])

    def admit(self, features: Sequence[np.ndarray]) -> np.ndarray:
        """Takes more images in: see StepModel. Their states lie behind those of the last step's rows."""
        given = np.ascontiguousarray(np.concatenate(features), np.float32)  # (images, feature_size)
        first, slot = self._held, self._lane.slots[self._current]
        assert first + len(given) <= slot.capacity, "the scheduler keeps within the capacity it asked for"
        self._lane.admit(given, self._current, first)
        self._held += len(given)
        return np.arange(first, self._held)

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
        temperatures: np.ndarray,
        uniforms: np.ndarray,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Returns a next token drawn from the whole distribution: see StepModel."""
        if too_few_temperatures(self._lane.session("sample_step"), temperatures):
            return super().draw(token_ids, parent_rows, bias, temperatures, uniforms)
        bound = self._feed("sample_step", token_ids, parent_rows, bias)
        heat = bound.inputs["temperature"]
        heat[:] = temperatures[: len(heat)].clip(*TEMPERATURES)
        bound.inputs["uniforms"][:] = uniforms
        return self._run(bound)

    def _feed(
        self, graph: str, token_ids: np.ndarray, parent_rows: np.ndarray, bias: np.ndarray, k: int = 0
    ) -> "_Bound":
        """Returns what runs a graph, with these inputs in place."""
        rows = len(token_ids)
        if self._lane.reserve(self._lane.slots[1 - self._current], rows):
            self._large.clear()
        kept = self._lane.bound if rows * k <= MOST_KEPT else self._large
        key = (graph, self._current, rows, k, len(bias))
        bound = kept.get(key)
        if bound is None:
            if len(kept) >= MOST_BOUND:
                kept.clear()
            bound = kept[key] = self._lane.bind(key)
        bound.inputs["token_ids"][:] = token_ids
        bound.inputs["parent_rows"][:] = parent_rows
        if bias is not bound.bias:
            bound.bias = bias  # kept alive: the binding holds its address alone
            bound.binding.bind_cpu_input("bias", bias)
        return bound

    def _run(self, bound: "_Bound") -> tuple[np.ndarray, np.ndarray]:
        bound.session.run_with_iobinding(bound.binding)
        if bound.bias is not None and len(bound.bias) > 1:  # of this step alone: kept, it would be one for each shape
            bound.bias = None
            bound.binding.bind_cpu_input("bias", NO_BIAS)
        self._current, self._held = 1 - self._current, len(bound.ids)
        return bound.ids, bound.values


@dataclass(slots=True)
class _Bound:
    """A binding for one graph, shape and direction, with the host memory that it reads and writes."""

    session: Any
    binding: Any
    inputs: dict[str, np.ndarray]
    ids: np.ndarray  # (rows, k) or (rows,), as values
    values: np.ndarray
    bias: np.ndarray | None = None


class StepLane:
    """Two slots of state, and the bindings between them that are kept: for one decode at a time."""

    def __init__(self, session: Callable[[str], Any], units: int) -> None:
        """session(graph) returns the onnxruntime.InferenceSession of a graph."""
        self.slots = _Slot(units), _Slot(units)
        self.bound: dict[Key, _Bound] = {}
        self._admissions: dict[tuple[int, int, int], Any] = {}  # by slot, first row and images: session and binding
        self.session = session

    def reserve(self, slot: "_Slot", rows: int) -> bool:
        """Makes room in a slot; says whether its memory has moved, to which nothing is bound any more."""
        moved = slot.reserve(rows)
        if moved:
            self.bound.clear()
            self._admissions.clear()
        return moved

    def admit(self, features: np.ndarray, current: int, first: int) -> None:
        """Writes the first states of images to rows of the current slot from `first` on."""
        key = current, first, len(features)
        if key not in self._admissions:
            if len(self._admissions) >= MOST_BOUND:
                self._admissions.clear()
            session = self.session("decoder_init")
            binding = session.io_binding()
            self.slots[current].bind_outputs(binding, ("hidden", "cell"), len(features), first)
            self._admissions[key] = session, binding
        session, binding = self._admissions[key]
        binding.bind_cpu_input("features", features)
        session.run_with_iobinding(binding)

    def bind(self, key: Key) -> _Bound:
        """Binds a step, except for its bias."""
        graph, current, rows, k, _ = key
        session = self.session(graph)
        binding = session.io_binding()
        inputs: dict[str, np.ndarray] = {"token_ids": np.empty(rows, np.int64), "parent_rows": np.empty(rows, np.int64)}
        if graph == "search_step":
            inputs["k"] = np.array([k], np.int64)
        elif graph == "sample_step":
            heats = 1 if takes_one_temperature(session) else rows
            inputs |= {"uniforms": np.empty(rows, np.float32), "temperature": np.empty(heats, np.float32)}
        for name, array in inputs.items():
            binding.bind_cpu_input(name, array)
        shape = (rows, k) if graph == "search_step" else (rows,)
        ids, values = np.empty(shape, np.int64), np.empty(shape, np.float32)
        binding.bind_output("ids", "cpu", 0, np.int64, shape, ids.ctypes.data)
        name = "logits" if graph == "greedy_step" else "log_probs"
        binding.bind_output(name, "cpu", 0, np.float32, shape, values.ctypes.data)
        self.slots[current].bind_inputs(binding)
        self.slots[1 - current].bind_outputs(binding, ("next_hidden", "next_cell"), rows)
        return _Bound(session, binding, inputs, ids, values)


class _Slot:
    """Hidden and cell of some rows; grows, but never shrinks."""

    def __init__(self, units: int) -> None:
        self._units = units
        self.capacity = 0
        self._memory: tuple[Any, ...] = ()  # hidden, cell as onnxruntime.OrtValue

    def reserve(self, rows: int) -> bool:
        """Makes room; says whether the memory has moved."""
        if rows <= self.capacity:
            return False
        allocate = onnxruntime().OrtValue.ortvalue_from_shape_and_type
        self._memory = tuple(allocate([rows, self._units], np.float32, "cpu", 0) for _ in range(2))
        self.capacity = rows
        return True

    def bind_inputs(self, binding: Any) -> None:
        for name, memory in zip(("hidden", "cell"), self._memory, strict=True):
            binding.bind_input(name, "cpu", 0, np.float32, [self.capacity, self._units], memory.data_ptr())

    def bind_outputs(self, binding: Any, names: tuple[str, str], rows: int, first: int = 0) -> None:
        for name, memory in zip(names, self._memory, strict=True):
            address = memory.data_ptr() + 4 * first * self._units
            binding.bind_output(name, "cpu", 0, np.float32, [rows, self._units], address)
