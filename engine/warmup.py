"""Everything once before anybody waits: sessions, engines and CUDA graphs, and engines saved for other processes."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from engine.decoding.decode import decode, rows_per_image
from engine.decoding.step_model import StepModel
from engine.options import Beam, Decoding, Greedy
from engine.runtime.buckets import BUCKETS, bucket
from engine.runtime.sessions import save_engine
from engine.validation import is_int, require

if TYPE_CHECKING:
    from engine.captioner import Captioner

Again = Callable[[StepModel, np.ndarray, np.ndarray], object]
"""again(model, zeros, mask) steps as many rows as there are zeros. It holds no model: that would keep its memory."""


@dataclass(frozen=True, slots=True)
class Warmed:
    """How long the first and the second call for a batch took, in seconds."""

    batch_size: int
    decoding: Decoding
    first: float
    second: float


def warm_up(
    captioner: "Captioner",
    batch_sizes: Sequence[int] | None = None,
    decodings: Sequence[Decoding] = (Greedy(), Beam()),
) -> list[Warmed]:
    """Captions grey images until nothing is left to build, in the thread that calls.

    batch_sizes: None is 1 and the captioner's batch_size and, on a GPU, every bucket below it. ONNX Runtime keeps CUDA
    graphs for each thread: where they are on, a thread that is to find them has to warm up itself. Raises OptionsError.
    """
    on_device = captioner._graphs.on_device
    most = captioner.batch_size
    if batch_sizes is None:
        batch_sizes = sorted({1, most, *(size for size in BUCKETS if on_device and size < most)})
    for size in batch_sizes:
        require(is_int(size, 1) and size <= most, "warmup", "batch_sizes", size, f"whole numbers from 1 to {most}")
    spec = captioner.bundle.manifest.image
    image = np.full((spec.height, spec.width, 3), 127, np.uint8)
    warmed = []
    if captioner._graphs.encoder.lanes:
        captioner._graphs.encoder.encode_in_lane(image[None])
    for decoding in decodings:
        for size in batch_sizes:
            times = [time.perf_counter()]
            for _ in range(2):
                captioner.caption([image] * size, decoding)
                times.append(time.perf_counter())
            warmed.append(Warmed(size, decoding, times[1] - times[0], times[2] - times[1]))
    if on_device and batch_sizes:
        images = max(batch_sizes)
        # the widest first: what was captured is captured anew where the state's memory has to grow
        for decoding in sorted(decodings, key=partial(rows_per_image, defaults=captioner.bundle.manifest.defaults))[
            ::-1
        ]:
            _warm_steps(captioner, images, decoding)
        captioner.caption([image] * 3 * most)  # a batch is encoded while the features of the one before are still held
    return warmed


def save_engines(captioner: "Captioner") -> list[Path]:
    """Builds the engines of a captioner's graphs and saves them where its `engine_cache` says.

    Returns the files; none where the provider builds nothing. Sessions load them from then on where bundle, options,
    versions and GPU are the same. Raises ProviderError and OSError.
    """
    graphs, bundle = captioner._graphs, captioner.bundle
    names = {graph.graph for graph in bundle.manifest.graphs} - {"decoder_step"}  # which the engine does not run
    saved = (
        save_engine(
            bundle.path, bundle.graph(name, captioner.precision), graphs.placement.provider(name), graphs.options
        )
        for name in sorted(names)
    )
    return [path for path in saved if path is not None]


def _warm_steps(captioner: "Captioner", batch_size: int, decoding: Decoding) -> None:
    """Runs a step in each bucket: which of them a decode meets is up to the images, of which some end sooner."""
    manifest = captioner.bundle.manifest
    model = captioner._graphs.start(np.zeros((batch_size, manifest.feature_size), np.float32))
    spy = _Spy(model)
    decode(spy, decoding, captioner._rules(decoding), captioner.bundle.vocabulary, manifest.defaults)
    most = bucket(batch_size * rows_per_image(decoding, manifest.defaults))
    for bias, run in spy.kinds.values():
        for rows in (most, *(size for size in BUCKETS[::-1] if size <= most)):  # at first both slots grow
            zeros = np.zeros(rows, np.int64)
            for _ in range(2):  # one for each slot of state
                run(model, zeros, bias if len(bias) == 1 else np.repeat(bias[:1], rows, axis=0))


class _Spy(StepModel):
    """Notes which kinds of step a decode takes, each with a mask and with what runs it again."""

    images = 0

    def __init__(self, model: StepModel) -> None:
        self.images = model.images
        self.kinds: dict[tuple[str, int, bool], tuple[np.ndarray, Again]] = {}
        self._model = model

    def step(
        self, token_ids: np.ndarray, parent_rows: np.ndarray, bias: np.ndarray, k: int
    ) -> tuple[np.ndarray, np.ndarray]:
        self._note("step", bias, lambda model, zeros, mask: model.step(zeros, zeros, mask, k), k)
        return self._model.step(token_ids, parent_rows, bias, k)

    def best(self, token_ids: np.ndarray, parent_rows: np.ndarray, bias: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        self._note("best", bias, lambda model, zeros, mask: model.best(zeros, zeros, mask))
        return self._model.best(token_ids, parent_rows, bias)

    def draw(
        self,
        token_ids: np.ndarray,
        parent_rows: np.ndarray,
        bias: np.ndarray,
        temperatures: np.ndarray,
        uniforms: np.ndarray,
    ) -> tuple[np.ndarray, np.ndarray]:
        def again(model: StepModel, zeros: np.ndarray, mask: np.ndarray) -> object:
            return model.draw(zeros, zeros, mask, np.ones(len(zeros)), np.ones(len(zeros), np.float32))

        self._note("draw", bias, again)
        return self._model.draw(token_ids, parent_rows, bias, temperatures, uniforms)

    def _note(self, verb: str, bias: np.ndarray, run: Again, k: int = 0) -> None:
        self.kinds.setdefault((verb, k, len(bias) == 1), (bias, run))
