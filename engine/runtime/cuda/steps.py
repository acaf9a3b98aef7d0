"""One decode of one batch on a CUDA device: state and masks stay there, and all runs have one of a few fixed shapes.

Each step copies its inputs to the device in one piece, runs, waits, and copies the result back in one piece. Knows
nothing of how a search chooses.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import gcd, lcm, prod
from typing import Any, NamedTuple

import numpy as np

from engine.bundle.manifest import ContextTensor, StateTensor
from engine.decoding.step_model import StepModel
from engine.runtime.cuda.buckets import bucket
from engine.runtime.cuda.device import ALIGNMENT, NO_GRAPH, Device, DeviceFeatures, GraphIds, Parcel, joined
from engine.runtime.image_rows import ImageRows, runs
from engine.runtime.pool import Pool
from engine.runtime.steps import TEMPERATURES


class Kind(NamedTuple):
    """Everything that fixes the shapes and addresses of a run."""

    graph: str
    slot: int  # the state slot that it reads
    rows: int  # a bucket
    k: int  # of search_step, else 0: the kernel reads k on the host, so each k needs its own CUDA graph
    shared: bool  # whether all rows share one mask


class DeviceDecoder:
    """Starts decodes on a device; threads may share it."""

    def __init__(
        self,
        device: Device,
        state: Sequence[StateTensor],
        context: Sequence[ContextTensor],
        vocabulary_size: int,
    ) -> None:
        ids = GraphIds()
        self._device = device
        self._pool = Pool(lambda: _StepBuffers(device, state, context, vocabulary_size, ids))

    def start(self, features: np.ndarray | DeviceFeatures) -> "DeviceSteps":
        """Starts the decode of a batch: features float32 (images, *feature_shape), on the host or the device."""
        with self._device.exclusive():
            steps = DeviceSteps(self._device, self._pool, len(features))
            steps.admit([features])
            return steps

    def start_empty(self, capacity: int) -> "DeviceSteps":
        """Starts a decode without images, which are admitted later; capacity: most rows and images at a time."""
        with self._device.exclusive():
            return DeviceSteps(self._device, self._pool, 0, capacity)


class DeviceSteps(StepModel):
    """A StepModel. Rows are padded to a bucket with copies of row 0, whose results are dropped."""

    images = 0

    def __init__(self, device: Device, pool: "Pool[_StepBuffers]", images: int, capacity: int = 0) -> None:
        self.images = images
        self._device = device
        self._slot = 0  # the slot with the current state
        self._held = 0  # rows in use in that slot
        self._buffers = pool.borrow(self)
        self._image_rows = ImageRows(self._buffers.context_aligned) if self._buffers.context else None
        self._buffers.reserve(capacity, images)

    def admit(self, features: Sequence[np.ndarray | DeviceFeatures]) -> np.ndarray:
        """Admits more images: see StepModel. Their states are stored after those of the last step's rows."""
        rows = []
        with self._device.exclusive():
            for part in joined(features):  # features on the device stay there: one run for each piece of memory
                free = None if self._image_rows is None else self._image_rows.free(len(part))
                for chosen in [slice(0, len(part))] if free is None else runs(free):
                    first = -(-self._held // self._buffers.aligned) * self._buffers.aligned
                    first_image = 0 if free is None else int(free[chosen.start])
                    self._buffers.admit(part[chosen], self._slot, first, first_image)
                    self._held = first + chosen.stop - chosen.start
                    rows.append(np.arange(first, self._held))
                    if self._image_rows is not None and free is not None:
                        self._image_rows.assign(first, free[chosen])
        return np.concatenate(rows)

    def step(
        self, token_ids: np.ndarray, parent_rows: np.ndarray, bias: np.ndarray, k: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Returns the k best next tokens: see StepModel."""
        return self._run("search_step", bias, {"token_ids": token_ids, "parent_rows": parent_rows}, k)

    def draw(
        self,
        token_ids: np.ndarray,
        parent_rows: np.ndarray,
        bias: np.ndarray,
        temperatures: np.ndarray,
        uniforms: np.ndarray,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Returns a next token drawn from the whole distribution: see StepModel."""
        heat = temperatures.clip(*TEMPERATURES)
        given = {"token_ids": token_ids, "parent_rows": parent_rows, "uniforms": uniforms, "temperature": heat}
        return self._run("sample_step", bias, given)

    def _run(
        self, graph: str, bias: np.ndarray, inputs: dict[str, np.ndarray], k: int = 0
    ) -> tuple[np.ndarray, np.ndarray]:
        rows = len(inputs["token_ids"])
        with self._device.exclusive():
            run = self._buffers.run(Kind(graph, self._slot, bucket(rows), k, len(bias) == 1))
            if self._image_rows is not None:
                inputs["image_rows"] = self._image_rows.follow(inputs["parent_rows"])
            for name, array in inputs.items():
                place = run.inputs.arrays[name]
                place[: len(array)] = array
                place[len(array) :] = array[0]
            run.inputs.send()
            self._buffers.send_bias(run, bias)
            run.session.run_with_iobinding(run.binding, run.options)
            ids, values = run.outputs.fetch().values()
        self._slot, self._held = 1 - self._slot, rows
        return ids[:rows], values[:rows]


@dataclass(slots=True)
class _Run:
    """A binding of one kind with its own memory; its addresses and shapes never change."""

    session: Any
    binding: Any
    options: Any  # onnxruntime.RunOptions with the number of the run's CUDA graph; None without graphs
    inputs: Parcel
    outputs: Parcel  # ids and log_probs
    k: np.ndarray  # (1,) on the host
    bias: Any  # on the device: (1 or rows, vocabulary)


class _StepBuffers:
    """The device memory of one decode at a time: two state slots, context, masks, and a _Run for each kind so far."""

    def __init__(
        self,
        device: Device,
        state: Sequence[StateTensor],
        context: Sequence[ContextTensor],
        vocabulary_size: int,
        ids: GraphIds,
    ) -> None:
        self.context = context
        # tensors are written from multiples of so many rows
        self.aligned, self.context_aligned = (lcm(1, *map(_aligned, tensors)) for tensors in (state, context))
        self._device = device
        self._state = state
        self._vocabulary = vocabulary_size
        self._ids = ids
        self._slots: list[list[Any]] = [[], []]  # of each: an onnxruntime.OrtValue for each state tensor
        self._context_memory: list[Any] = []  # an onnxruntime.OrtValue for each context tensor
        self._runs: dict[Kind, _Run] = {}
        self._shared_bias = device.allocate((1, vocabulary_size), np.float32)
        self._row_bias: dict[int, tuple[np.ndarray, Any]] = {}  # by bucket: on the host, on the device
        self._sent: np.ndarray | None = None  # the mask in _shared_bias; held so that `is` stays valid

    def reserve(self, rows: int, images: int) -> None:
        """Makes room before a decode begins: in both slots for rows admitted one by one, and for context of images."""
        if rows:
            for slot in (0, 1):
                self._reserve(slot, (rows + 1) * self.aligned)
        wanted = max(rows, images) * self.context_aligned
        if self.context and (not self._context_memory or wanted > self._context_memory[0].shape()[0]):
            shapes = [((bucket(wanted), *each.shape), np.dtype(each.dtype)) for each in self.context]
            self._context_memory = [self._device.allocate(*shape) for shape in shapes]
            self._drop_runs()

    def admit(self, features: np.ndarray | DeviceFeatures, slot: int, first: int, first_image: int) -> None:
        """Writes the first states of images to rows of a slot from `first` on, and their context from first_image on.

        Unless `first` is 0, the slot has room.
        """
        images = len(features)
        if not isinstance(features, DeviceFeatures) or features.address % ALIGNMENT:  # few feature sizes do that
            memory = self._device.upload(np.asarray(features, np.float32))
            features = DeviceFeatures(self._device, memory, images)
        session = self._device.session("decoder_init")
        binding = session.io_binding()
        self._device.bind_input(binding, "features", np.float32, features.shape, features.address)
        if not first:
            self._reserve(slot, images)
        assert first + images <= self._rows(slot), "the scheduler admits no more than it reserved"
        for each, memory in zip(self._state, self._slots[slot], strict=True):
            self._bind_output(binding, each.name, each, memory, images, first)
        for part, memory in zip(self.context, self._context_memory, strict=True):
            self._bind_output(binding, part.name, part, memory, images, first_image)
        session.run_with_iobinding(binding)

    def run(self, kind: Kind) -> _Run:
        """Returns the run of a kind, bound on first use."""
        self._reserve(1 - kind.slot, kind.rows)
        if kind not in self._runs:
            self._runs[kind] = self._bind(kind)
        return self._runs[kind]

    def send_bias(self, run: _Run, bias: np.ndarray) -> None:
        """Copies the mask of a step to the device, unless it is there already."""
        if len(bias) > 1:
            host, _ = self._row_bias[run.bias.shape()[0]]
            host[: len(bias)] = bias
            run.bias.update_inplace(host)
        elif bias is not self._sent:
            run.bias.update_inplace(np.ascontiguousarray(bias, np.float32))
            self._sent = bias

    def _bind(self, kind: Kind) -> _Run:
        device, rows, session = self._device, (kind.rows,), self._device.session(kind.graph)
        shape = (kind.rows, kind.k) if kind.graph == "search_step" else rows
        drawn = dict.fromkeys(("uniforms", "temperature") if kind.graph == "sample_step" else (), (np.float32, rows))
        names = ("token_ids", "parent_rows", "image_rows") if self.context else ("token_ids", "parent_rows")
        run = _Run(
            session=session,
            binding=session.io_binding(),
            options=self._ids.options(len(self._runs)) if device.cuda_graphs else None,
            inputs=Parcel(device, **dict.fromkeys(names, (np.int64, rows)), **drawn),
            outputs=Parcel(device, ids=(np.int64, shape), log_probs=(np.float32, shape)),
            k=np.array([kind.k], np.int64),
            bias=self._shared_bias if kind.shared else self._bias_of_rows(kind.rows),
        )
        run.inputs.bind_inputs(run.binding)
        run.outputs.bind_outputs(run.binding)
        if kind.graph == "search_step":
            run.binding.bind_cpu_input("k", run.k)
        for part, memory in zip(self.context, self._context_memory, strict=True):
            self._bind_input(run.binding, part, memory)
        for each, memory in zip(self._state, self._slots[kind.slot], strict=True):
            self._bind_input(run.binding, each, memory)
        device.bind_input(run.binding, "bias", np.float32, tuple(run.bias.shape()), run.bias.data_ptr())
        for each, memory in zip(self._state, self._slots[1 - kind.slot], strict=True):
            self._bind_output(run.binding, each.next, each, memory, kind.rows)
        return run

    def _bias_of_rows(self, rows: int) -> Any:
        if rows not in self._row_bias:
            shape = (rows, self._vocabulary)
            self._row_bias[rows] = np.zeros(shape, np.float32), self._device.allocate(shape, np.float32)
        return self._row_bias[rows][1]

    def _bind_input(self, binding: Any, tensor: StateTensor | ContextTensor, memory: Any) -> None:
        """Binds all rows of a tensor's memory."""
        dtype = np.dtype(tensor.dtype)
        self._device.bind_input(binding, tensor.name, dtype, tuple(memory.shape()), memory.data_ptr())

    def _bind_output(
        self, binding: Any, name: str, tensor: StateTensor | ContextTensor, memory: Any, rows: int, first: int = 0
    ) -> None:
        """Binds rows of a tensor's memory, from `first` on."""
        address = memory.data_ptr() + _row_bytes(tensor) * first
        self._device.bind_output(binding, name, np.dtype(tensor.dtype), (rows, *tensor.shape), address)

    def _rows(self, slot: int) -> int:
        return int(self._slots[slot][0].shape()[0]) if self._slots[slot] else 0

    def _reserve(self, slot: int, rows: int) -> None:
        """Makes room for rows in a slot. Runs bound to memory that moves are bound and captured again."""
        if rows > self._rows(slot):
            shapes = [((bucket(rows), *each.shape), np.dtype(each.dtype)) for each in self._state]
            self._slots[slot] = [self._device.allocate(*shape) for shape in shapes]
            self._drop_runs()

    def _drop_runs(self) -> None:
        for run in self._runs.values():
            if run.options is not None and hasattr(run.session, "release_captured_graph"):  # from ONNX Runtime 1.31 on
                number = int(run.options.get_run_config_entry("gpu_graph_id"))
                if number != NO_GRAPH:
                    run.session.release_captured_graph(number)
        self._runs.clear()


def _row_bytes(tensor: StateTensor | ContextTensor) -> int:
    return np.dtype(tensor.dtype).itemsize * prod(tensor.shape)


def _aligned(tensor: StateTensor | ContextTensor) -> int:
    return ALIGNMENT // gcd(ALIGNMENT, _row_bytes(tensor))
