"""One decode of one batch on a CUDA device: state and masks stay there, and every run is one of a few static ones.

Each step copies the ids up, runs, waits for the run, and copies the k best down. Knows nothing of how a search chooses.
"""

from dataclasses import dataclass
from math import isnan
from typing import Any

import numpy as np

from engine.decoding.model import StepModel
from engine.errors import EngineError
from engine.runtime.buckets import bucket
from engine.runtime.device import NO_GRAPH, Device, DeviceFeatures, GraphIds, Lanes

Kind = tuple[int, int, int, bool]
"""What makes a run static: the slot that it reads, its rows, k, and whether all rows share one mask."""


class DeviceDecoder:
    """Begins decodes on a device; threads may share it."""

    def __init__(self, device: Device, units: int, vocabulary_size: int) -> None:
        ids = GraphIds()
        self._device = device
        self._lanes = Lanes(lambda: _StepLane(device, units, vocabulary_size, ids))

    def start(self, features: np.ndarray | DeviceFeatures) -> "DeviceSteps":
        """Begins the decode of a batch: features float32 (images, feature_size), here or on the device."""
        with self._device.turn():
            return DeviceSteps(self._device, self._lanes, features)


class DeviceSteps(StepModel):
    """A StepModel. Rows are filled up to a bucket with copies of row 0, whose answers nobody sees."""

    images = 0

    def __init__(self, device: Device, lanes: "Lanes[_StepLane]", features: np.ndarray | DeviceFeatures) -> None:
        self.images = len(features)
        self._device = device
        self._current = 0  # the slot that holds the state
        self._lane = lanes.lend(self)
        self._lane.start(features)

    def step(
        self, token_ids: np.ndarray, parent_rows: np.ndarray, bias: np.ndarray, k: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Feeds a token to each row: see StepModel."""
        rows = len(token_ids)
        with self._device.turn():
            run = self._lane.run(self._current, bucket(rows), k, shared=len(bias) == 1)
            run.rows[:, rows:] = 0
            run.rows[0, :rows] = token_ids
            run.rows[1, :rows] = parent_rows
            self._lane.upload(run, bias)
            self._lane.session.run_with_iobinding(run.binding, run.options)
            best = run.best.numpy()  # (bytes,)
        self._current = 1 - self._current
        ids_end = 8 * run.rows.shape[1] * k
        ids = best[:ids_end].view(np.int64).reshape(-1, k)[:rows]
        log_probs = best[ids_end:].view(np.float32).reshape(-1, k)[:rows]
        if isnan(log_probs[:, 0].sum()):  # where the best is no number, none of its row is
            raise EngineError(
                f"the model computed no numbers (NaN) on provider {self._device.provider!r}: its features are no "
                "numbers, or the provider or precision is broken here; try provider='cpu'"
            )
        return ids, log_probs


@dataclass(slots=True)
class _Run:
    """A binding of one kind, whose addresses and shapes never change, with the memory of its own."""

    binding: Any
    options: Any  # onnxruntime.RunOptions with the number of the run's CUDA graph; None without graphs
    rows: np.ndarray  # (2, bucket) token_ids above parent_rows, as they are copied to the device
    on_device: Any  # the same
    k: np.ndarray  # (1,) on the host, where the kernel reads it
    best: Any  # (bytes,) ids int64 (bucket, k), then log_probs float32 (bucket, k)


class _StepLane:
    """The device memory of one decode at a time: two slots of state, masks, and a _Run for each kind there was."""

    def __init__(self, device: Device, units: int, vocabulary_size: int, ids: GraphIds) -> None:
        self.session = device.session("search_step")
        self._start = device.session("decoder_init")
        self._device = device
        self._units = units
        self._vocabulary = vocabulary_size
        self._ids = ids
        self._slots: list[tuple[Any, Any] | None] = [None, None]  # hidden, cell of each
        self._runs: dict[Kind, _Run] = {}
        self._shared_bias = device.allocate((1, vocabulary_size), np.float32)
        self._row_bias: dict[int, tuple[np.ndarray, Any]] = {}  # by bucket: on the host, on the device
        self._uploaded: np.ndarray | None = None  # the mask that _shared_bias holds, kept so that it stays itself

    def start(self, features: np.ndarray | DeviceFeatures) -> None:
        """Writes the first state to slot 0."""
        images, size = features.shape
        if not isinstance(features, DeviceFeatures):
            memory = self._device.upload(features.astype(np.float32, copy=False))
            features = DeviceFeatures(self._device, memory, images)
        binding = self._start.io_binding()
        self._device.bind_input(binding, "features", np.float32, (images, size), features.address)
        self._bind_state(binding, ("hidden", "cell"), 0, images)
        self._start.run_with_iobinding(binding)

    def run(self, current: int, size: int, k: int, *, shared: bool) -> _Run:
        """Returns the run of a kind, bound on first use."""
        self._reserve(1 - current, size)
        kind = (current, size, k, shared)
        if kind not in self._runs:
            self._runs[kind] = self._bind(kind)
        return self._runs[kind]

    def upload(self, run: _Run, bias: np.ndarray) -> None:
        """Copies what the step feeds: ids in one piece, and the mask where it is not there yet."""
        run.on_device.update_inplace(run.rows)
        if len(bias) == 1:
            if bias is not self._uploaded:
                self._shared_bias.update_inplace(np.ascontiguousarray(bias, np.float32))
                self._uploaded = bias
        else:
            host, device = self._row_bias[run.rows.shape[1]]
            host[: len(bias)] = bias
            device.update_inplace(host)

    def _bind(self, kind: Kind) -> _Run:
        current, size, k, shared = kind
        device, binding = self._device, self.session.io_binding()
        run = _Run(
            binding=binding,
            options=self._ids.options(len(self._runs)) if device.cuda_graphs else None,
            rows=np.zeros((2, size), np.int64),
            on_device=device.allocate((2, size), np.int64),
            k=np.array([k], np.int64),
            best=device.allocate((size * k * (8 + 4),), np.uint8),
        )
        for place, name in enumerate(("token_ids", "parent_rows")):
            device.bind_input(binding, name, np.int64, (size,), run.on_device.data_ptr() + 8 * size * place)
        hidden, cell = self._memory(current)
        for name, memory in (("hidden", hidden), ("cell", cell)):
            device.bind_input(binding, name, np.float32, tuple(memory.shape()), memory.data_ptr())
        if not shared and size not in self._row_bias:
            shape = (size, self._vocabulary)
            self._row_bias[size] = np.zeros(shape, np.float32), device.allocate(shape, np.float32)
        bias = self._shared_bias if shared else self._row_bias[size][1]
        device.bind_input(binding, "bias", np.float32, tuple(bias.shape()), bias.data_ptr())
        binding.bind_cpu_input("k", run.k)
        device.bind_output(binding, "ids", np.int64, (size, k), run.best.data_ptr())
        device.bind_output(binding, "log_probs", np.float32, (size, k), run.best.data_ptr() + 8 * size * k)
        self._bind_state(binding, ("next_hidden", "next_cell"), 1 - current, size)
        return run

    def _bind_state(self, binding: Any, names: tuple[str, str], slot: int, rows: int) -> None:
        self._reserve(slot, rows)
        for name, memory in zip(names, self._memory(slot), strict=True):
            self._device.bind_output(binding, name, np.float32, (rows, self._units), memory.data_ptr())

    def _reserve(self, slot: int, rows: int) -> None:
        """Makes room for rows in a slot. What was bound to memory that moves is bound, and captured, anew."""
        held = self._slots[slot]
        if held is not None and rows <= held[0].shape()[0]:
            return
        shape = (bucket(rows), self._units)
        self._slots[slot] = self._device.allocate(shape, np.float32), self._device.allocate(shape, np.float32)
        self._forget_runs()

    def _forget_runs(self) -> None:
        """Forgets what addresses memory that has moved, the graphs that this thread captured of it too."""
        if hasattr(self.session, "release_captured_graph"):  # from ONNX Runtime 1.31 on
            numbers = [
                int(run.options.get_run_config_entry("gpu_graph_id")) for run in self._runs.values() if run.options
            ]
            for number in numbers:
                if number != NO_GRAPH:
                    self.session.release_captured_graph(number)
        self._runs.clear()

    def _memory(self, slot: int) -> tuple[Any, Any]:
        memory = self._slots[slot]
        assert memory is not None, "a slot is reserved before it is bound"
        return memory
