"""One decode of one batch on a CUDA device: state and masks stay there, and every run is one of a few static ones.

Each step copies its inputs up in one piece, runs, waits for the run, and copies the answer down in one piece. Knows
nothing of how a search chooses.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from engine.decoding.model import StepModel
from engine.runtime.buckets import bucket
from engine.runtime.device import ALIGNMENT, NO_GRAPH, Device, DeviceFeatures, GraphIds, Parcel
from engine.runtime.lanes import Lanes
from engine.runtime.steps import TEMPERATURES

ALIGNED_ROWS = ALIGNMENT // 4
"""States of admitted images begin at a multiple of it: aligned, however many units a row has."""


class Kind(NamedTuple):
    """What makes a run static."""

    graph: str
    slot: int  # of state that it reads
    rows: int  # a bucket
    k: int  # of search_step, 0 elsewhere: the kernel reads it on the host, so that each has a CUDA graph of its own
    shared: bool  # whether all rows share one mask


class DeviceDecoder:
    """Begins decodes on a device; threads may share it."""

    def __init__(
        self, device: Device, units: int, vocabulary_size: int, graphs: Collection[str] = ("search_step",)
    ) -> None:
        """Graphs are those that the bundle holds."""
        ids = GraphIds()
        self._device = device
        self._graphs = frozenset(graphs)
        self._lanes = Lanes(lambda: _StepLane(device, units, vocabulary_size, ids))

    def start(self, features: np.ndarray | DeviceFeatures) -> "DeviceSteps":
        """Begins the decode of a batch: features float32 (images, feature_size), here or on the device."""
        with self._device.turn():
            steps = DeviceSteps(self._device, self._graphs, self._lanes, len(features))
            steps.admit(features)
            return steps

    def begin(self, capacity: int) -> "DeviceSteps":
        """Begins a decode without images, which are admitted later; capacity: most rows and images at a time."""
        with self._device.turn():
            return DeviceSteps(self._device, self._graphs, self._lanes, 0, capacity)


class DeviceSteps(StepModel):
    """A StepModel. Rows are filled up to a bucket with copies of row 0, whose answers nobody sees."""

    images = 0

    def __init__(
        self,
        device: Device,
        graphs: frozenset[str],
        lanes: "Lanes[_StepLane]",
        images: int,
        capacity: int = 0,
    ) -> None:
        self.images = images
        self._device = device
        self._graphs = graphs
        self._slot = 0  # that holds the state
        self._held = 0  # rows of it that are in use
        self._lane = lanes.lend(self)
        self._lane.reserve(capacity and capacity + ALIGNED_ROWS)

    def admit(self, features: np.ndarray | DeviceFeatures) -> np.ndarray:
        """Takes more images in: see StepModel. Their states lie behind those of the last step's rows."""
        first, images = -(-self._held // ALIGNED_ROWS) * ALIGNED_ROWS, len(features)
        with self._device.turn():
            self._lane.admit(features, self._slot, first)
        self._held = first + images
        return np.arange(first, self._held)

    def step(
        self, token_ids: np.ndarray, parent_rows: np.ndarray, bias: np.ndarray, k: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Returns the k best next tokens: see StepModel."""
        return self._run("search_step", bias, {"token_ids": token_ids, "parent_rows": parent_rows}, k)

    def best(self, token_ids: np.ndarray, parent_rows: np.ndarray, bias: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns the best next token: see StepModel."""
        if "greedy_step" not in self._graphs:
            return super().best(token_ids, parent_rows, bias)
        return self._run("greedy_step", bias, {"token_ids": token_ids, "parent_rows": parent_rows})

    def draw(
        self,
        token_ids: np.ndarray,
        parent_rows: np.ndarray,
        bias: np.ndarray,
        temperature: float,
        uniforms: np.ndarray,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Returns a next token drawn from the whole distribution: see StepModel."""
        if "sample_step" not in self._graphs:
            return super().draw(token_ids, parent_rows, bias, temperature, uniforms)
        heat = np.array([min(max(temperature, TEMPERATURES[0]), TEMPERATURES[1])], np.float32)
        given = {"token_ids": token_ids, "parent_rows": parent_rows, "uniforms": uniforms, "temperature": heat}
        return self._run("sample_step", bias, given)

    def _run(
        self, graph: str, bias: np.ndarray, inputs: dict[str, np.ndarray], k: int = 0
    ) -> tuple[np.ndarray, np.ndarray]:
        rows = len(inputs["token_ids"])
        with self._device.turn():
            run = self._lane.run(Kind(graph, self._slot, bucket(rows), k, len(bias) == 1))
            for name, array in inputs.items():
                run.inputs.arrays[name][: len(array)] = array
                run.inputs.arrays[name][len(array) :] = array[0]
            run.inputs.send()
            self._lane.send_bias(run, bias)
            run.session.run_with_iobinding(run.binding, run.options)
            ids, values = run.outputs.fetch().values()
        self._slot, self._held = 1 - self._slot, rows
        return ids[:rows], values[:rows]


@dataclass(slots=True)
class _Run:
    """A binding of one kind, whose addresses and shapes never change, with the memory of its own."""

    session: Any
    binding: Any
    options: Any  # onnxruntime.RunOptions with the number of the run's CUDA graph; None without graphs
    inputs: Parcel
    outputs: Parcel  # ids, then how good they are
    k: np.ndarray  # (1,) on the host
    bias: Any  # on the device: (1 or rows, vocabulary)


class _StepLane:
    """The device memory of one decode at a time: two slots of state, masks, and a _Run for each kind there was."""

    def __init__(self, device: Device, units: int, vocabulary_size: int, ids: GraphIds) -> None:
        self._device = device
        self._units = units
        self._vocabulary = vocabulary_size
        self._ids = ids
        self._slots: list[tuple[Any, Any] | None] = [None, None]  # hidden, cell of each
        self._runs: dict[Kind, _Run] = {}
        self._shared_bias = device.allocate((1, vocabulary_size), np.float32)
        self._row_bias: dict[int, tuple[np.ndarray, Any]] = {}  # by bucket: on the host, on the device
        self._sent: np.ndarray | None = None  # the mask that _shared_bias holds, kept so that it stays itself

    def reserve(self, rows: int) -> None:
        """Makes room in both slots."""
        if rows:
            for slot in (0, 1):
                self._reserve(slot, rows)

    def admit(self, features: np.ndarray | DeviceFeatures, slot: int, first: int) -> None:
        """Writes the first states of images to rows of a slot from `first` on, which has room where it is not 0."""
        images, size = features.shape
        if not isinstance(features, DeviceFeatures):
            memory = self._device.upload(features.astype(np.float32, copy=False))
            features = DeviceFeatures(self._device, memory, images)
        session = self._device.session("decoder_init")
        binding = session.io_binding()
        self._device.bind_input(binding, "features", np.float32, (images, size), features.address)
        self._reserve(slot, first + images)
        self._bind_state(binding, ("hidden", "cell"), slot, images, first)
        session.run_with_iobinding(binding)

    def run(self, kind: Kind) -> _Run:
        """Returns the run of a kind, bound on first use."""
        self._reserve(1 - kind.slot, kind.rows)
        if kind not in self._runs:
            self._runs[kind] = self._bind(kind)
        return self._runs[kind]

    def send_bias(self, run: _Run, bias: np.ndarray) -> None:
        """Copies the mask of a step to the device, unless it is there."""
        if len(bias) > 1:
            host, _ = self._row_bias[run.bias.shape()[0]]
            host[: len(bias)] = bias
            run.bias.update_inplace(host)
        elif bias is not self._sent:
            run.bias.update_inplace(np.ascontiguousarray(bias, np.float32))
            self._sent = bias

    def _bind(self, kind: Kind) -> _Run:
        device, rows, session = self._device, (kind.rows,), self._device.session(kind.graph)
        drawn: dict[str, Any] = {"uniforms": (np.float32, rows), "temperature": (np.float32, (1,))}
        shape = (kind.rows, kind.k) if kind.graph == "search_step" else rows
        values = "logits" if kind.graph == "greedy_step" else "log_probs"
        run = _Run(
            session=session,
            binding=session.io_binding(),
            options=self._ids.options(len(self._runs)) if device.cuda_graphs else None,
            inputs=Parcel(
                device,
                token_ids=(np.int64, rows),
                parent_rows=(np.int64, rows),
                **(drawn if kind.graph == "sample_step" else {}),
            ),
            outputs=Parcel(device, ids=(np.int64, shape), **{values: (np.float32, shape)}),
            k=np.array([kind.k], np.int64),
            bias=self._shared_bias if kind.shared else self._bias_of_rows(kind.rows),
        )
        run.inputs.bind_inputs(run.binding)
        run.outputs.bind_outputs(run.binding)
        if kind.graph == "search_step":
            run.binding.bind_cpu_input("k", run.k)
        for name, memory in zip(("hidden", "cell"), self._memory(kind.slot), strict=True):
            device.bind_input(run.binding, name, np.float32, tuple(memory.shape()), memory.data_ptr())
        device.bind_input(run.binding, "bias", np.float32, tuple(run.bias.shape()), run.bias.data_ptr())
        self._bind_state(run.binding, ("next_hidden", "next_cell"), 1 - kind.slot, kind.rows)
        return run

    def _bias_of_rows(self, rows: int) -> Any:
        if rows not in self._row_bias:
            shape = (rows, self._vocabulary)
            self._row_bias[rows] = np.zeros(shape, np.float32), self._device.allocate(shape, np.float32)
        return self._row_bias[rows][1]

    def _bind_state(self, binding: Any, names: tuple[str, str], slot: int, rows: int, first: int = 0) -> None:
        for name, memory in zip(names, self._memory(slot), strict=True):
            address = memory.data_ptr() + 4 * first * self._units
            self._device.bind_output(binding, name, np.float32, (rows, self._units), address)

    def _memory(self, slot: int) -> tuple[Any, Any]:
        memory = self._slots[slot]
        assert memory is not None, "a slot is reserved before it is bound"
        return memory

    def _reserve(self, slot: int, rows: int) -> None:
        """Makes room for rows in a slot. What was bound to memory that moves is bound, and captured, anew."""
        held = self._slots[slot]
        if held is not None and rows <= held[0].shape()[0]:
            return
        shape = (bucket(rows), self._units)
        self._slots[slot] = self._device.allocate(shape, np.float32), self._device.allocate(shape, np.float32)
        for run in self._runs.values():
            if run.options is not None and hasattr(run.session, "release_captured_graph"):  # from ONNX Runtime 1.31 on
                number = int(run.options.get_run_config_entry("gpu_graph_id"))
                if number != NO_GRAPH:
                    run.session.release_captured_graph(number)
        self._runs.clear()
