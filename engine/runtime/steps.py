"""One decode of one batch on a session: the state between the steps, and the memory and bindings of each run.

Owns no session: threads share one, each with its own buffers, which the next decode reuses. Knows nothing of how the
search chooses.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from engine.bundle.manifest import ContextTensor, StateTensor
from engine.decoding.step_model import StepModel
from engine.runtime.image_rows import ImageRows, runs
from engine.runtime.pool import Pool
from engine.runtime.providers import onnxruntime

MOST_BOUND = 1000
"""Most bindings kept: a decode that images keep joining and leaving will need every shape."""
MOST_KEPT = 4096
"""Most candidates of a binding that outlives its decode: larger ones take memory, and their runs dwarf the binding."""
NO_BIAS = np.zeros((1, 1), np.float32)
"""Bound in place of a bias that is released."""
TEMPERATURES = 1e-30, 1e30
"""Outside this range single precision gives only 0 and infinity; the distribution cannot get sharper or flatter."""

Key = tuple[str, int, int, int, int]
"""What identifies a binding: graph, slot that it reads, rows, k, and rows of its bias."""


class Steps(StepModel):
    """A StepModel in host memory, for providers that read it directly instead of copying it: see DECODERS.

    Two state slots alternate, so that no run reads and writes the same memory. A run reads its whole slot and gathers
    its rows, so the input shape stays the same when rows leave. Each shape is bound once. Context is written once for
    each image, and stays where it is.
    """

    def __init__(self, pool: "Pool[StepBuffers]", features: np.ndarray, *, capacity: int = 0) -> None:
        """capacity: room for this many rows and admitted images at once, if images will be admitted."""
        self.images = len(features)
        self._buffers = pool.borrow(self)
        self._large: dict[Key, _Bound] = {}  # bindings too large to keep
        self._current = 0  # the slot with the current state
        self._held = 0  # rows of it that are in use
        self._image_rows = ImageRows() if self._buffers.context else None
        for slot in (0, 1):
            self._buffers.reserve(slot, capacity or self.images)
        self._buffers.reserve_context(capacity or self.images)
        if self.images:
            self.admit([features])

    def admit(self, features: Sequence[np.ndarray]) -> np.ndarray:
        """Admits more images: see StepModel. Their states are stored after those of the last step's rows."""
        given = np.ascontiguousarray(np.concatenate(features), np.float32)  # (images, *feature_shape)
        first = self._held
        assert first + len(given) <= self._buffers.capacity[self._current], "the scheduler admits no more than that"
        if self._image_rows is None:
            self._buffers.admit(given, self._current, first)
        else:
            rows = self._image_rows.free(len(given))
            self._image_rows.assign(first, rows)
            for part in runs(rows):
                self._buffers.admit(given[part], self._current, first + part.start, int(rows[part.start]))
        self._held += len(given)
        return np.arange(first, self._held)

    def step(
        self, token_ids: np.ndarray, parent_rows: np.ndarray, bias: np.ndarray, k: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Returns the k best next tokens: see StepModel."""
        return self._run(self._feed("search_step", token_ids, parent_rows, bias, k))

    def draw(
        self,
        token_ids: np.ndarray,
        parent_rows: np.ndarray,
        bias: np.ndarray,
        temperatures: np.ndarray,
        uniforms: np.ndarray,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Returns a next token drawn from the whole distribution: see StepModel."""
        bound = self._feed("sample_step", token_ids, parent_rows, bias)
        bound.inputs["temperature"][:] = temperatures.clip(*TEMPERATURES)
        bound.inputs["uniforms"][:] = uniforms
        return self._run(bound)

    def _feed(
        self, graph: str, token_ids: np.ndarray, parent_rows: np.ndarray, bias: np.ndarray, k: int = 0
    ) -> "_Bound":
        """Returns the binding that runs a graph, with these inputs written to it."""
        rows = len(token_ids)
        if self._buffers.reserve(1 - self._current, rows):
            self._large.clear()
        kept = self._buffers.bound if rows * k <= MOST_KEPT else self._large
        key = (graph, self._current, rows, k, len(bias))
        bound = kept.get(key)
        if bound is None:
            if len(kept) >= MOST_BOUND:
                kept.clear()
            bound = kept[key] = self._buffers.bind(key)
        bound.inputs["token_ids"][:] = token_ids
        bound.inputs["parent_rows"][:] = parent_rows
        if self._image_rows is not None:
            bound.inputs["image_rows"][:] = self._image_rows.follow(parent_rows)
        if bias is not bound.bias:
            bound.bias = bias  # kept alive: the binding keeps only its address
            bound.binding.bind_cpu_input("bias", bias)
        return bound

    def _run(self, bound: "_Bound") -> tuple[np.ndarray, np.ndarray]:
        bound.session.run_with_iobinding(bound.binding)
        if bound.bias is not None and len(bound.bias) > 1:  # used by this step only; each shape would keep one
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


class StepBuffers:
    """Two state slots, context, and the bindings between them, for one decode at a time."""

    def __init__(
        self, session: Callable[[str], Any], state: Sequence[StateTensor], context: Sequence[ContextTensor]
    ) -> None:
        """session(graph) returns the onnxruntime.InferenceSession of a graph."""
        self.session = session
        self.context = context
        self.capacity = [0, 0]  # rows of each slot, which grows but never shrinks
        self.bound: dict[Key, _Bound] = {}
        self._state = state
        self._memory: list[list[Any]] = [[], []]  # of each slot: an onnxruntime.OrtValue for each state tensor
        self._images = 0  # rows of the context, which grow but never shrink
        self._context_memory: list[Any] = []  # an onnxruntime.OrtValue for each context tensor

    def reserve(self, slot: int, rows: int) -> bool:
        """Makes room in a slot; returns whether its memory moved, which drops all bindings."""
        if rows <= self.capacity[slot]:
            return False
        self._memory[slot] = [_allocate(each, rows) for each in self._state]
        self.capacity[slot] = rows
        self.bound.clear()
        return True

    def reserve_context(self, images: int) -> None:
        """Makes room for the context of images before a decode begins; memory that moves drops all bindings."""
        if self.context and images > self._images:
            self._context_memory = [_allocate(each, images) for each in self.context]
            self._images = images
            self.bound.clear()

    def admit(self, features: np.ndarray, slot: int, first: int, first_image: int = 0) -> None:
        """Writes the first states of images to rows of a slot from `first` on; context from first_image on."""
        session = self.session("decoder_init")
        binding = session.io_binding()
        binding.bind_cpu_input("features", features)
        for each, memory in zip(self._state, self._memory[slot], strict=True):
            _bind_output(binding, each.name, each, memory, len(features), first)
        for part, memory in zip(self.context, self._context_memory, strict=True):
            _bind_output(binding, part.name, part, memory, len(features), first_image)
        session.run_with_iobinding(binding)

    def bind(self, key: Key) -> _Bound:
        """Binds everything of a step except its bias."""
        graph, slot, rows, k, _ = key
        session = self.session(graph)
        binding = session.io_binding()
        names = ("token_ids", "parent_rows", "image_rows") if self.context else ("token_ids", "parent_rows")
        inputs: dict[str, np.ndarray] = {name: np.empty(rows, np.int64) for name in names}
        if graph == "search_step":
            inputs["k"] = np.array([k], np.int64)
        elif graph == "sample_step":
            inputs |= {name: np.empty(rows, np.float32) for name in ("uniforms", "temperature")}
        for name, array in inputs.items():
            binding.bind_cpu_input(name, array)
        shape = (rows, k) if graph == "search_step" else (rows,)
        ids, values = np.empty(shape, np.int64), np.empty(shape, np.float32)
        binding.bind_output("ids", "cpu", 0, np.int64, shape, ids.ctypes.data)
        binding.bind_output("log_probs", "cpu", 0, np.float32, shape, values.ctypes.data)
        for part, memory in zip(self.context, self._context_memory, strict=True):
            _bind_input(binding, part, memory)
        for each, memory in zip(self._state, self._memory[slot], strict=True):
            _bind_input(binding, each, memory)
        for each, memory in zip(self._state, self._memory[1 - slot], strict=True):
            _bind_output(binding, each.next, each, memory, rows)
        return _Bound(session, binding, inputs, ids, values)


def _allocate(tensor: StateTensor | ContextTensor, rows: int) -> Any:
    return onnxruntime().OrtValue.ortvalue_from_shape_and_type([rows, *tensor.shape], np.dtype(tensor.dtype), "cpu", 0)


def _bind_input(binding: Any, tensor: StateTensor | ContextTensor, memory: Any) -> None:
    """Binds all rows of a tensor's memory."""
    binding.bind_input(tensor.name, "cpu", 0, np.dtype(tensor.dtype), memory.shape(), memory.data_ptr())


def _bind_output(
    binding: Any, name: str, tensor: StateTensor | ContextTensor, memory: Any, rows: int, first: int = 0
) -> None:
    """Binds rows of a tensor's memory, from `first` on."""
    dtype = np.dtype(tensor.dtype)
    address = memory.data_ptr() + dtype.itemsize * prod(tensor.shape) * first
    binding.bind_output(name, "cpu", 0, dtype, [rows, *tensor.shape], address)
