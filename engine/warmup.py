"""Warm-up: builds all sessions, engines and CUDA graphs in advance, and saves engines for other processes."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from engine.decoding.decode import decode, rows_per_image
from engine.decoding.step_model import StepModel
from engine.model import Model
from engine.options import Beam, Decoding, Greedy
from engine.runtime.cuda.buckets import BUCKETS, bucket
from engine.runtime.sessions import save_engine
from engine.validation import is_int, require

Again = Callable[[StepModel, np.ndarray, np.ndarray], object]
"""again(model, zeros, mask) steps one row per zero. It keeps no reference to the model, which would hold its memory."""


@dataclass(frozen=True, slots=True)
class Warmed:
    """How long the first and the second call for a batch took, in seconds."""

    batch_size: int
    decoding: Decoding
    first: float
    second: float


def warm_up(
    model: Model,
    batch_sizes: Sequence[int] | None = None,
    decodings: Sequence[Decoding] = (Greedy(), Beam()),
) -> list[Warmed]:
    """Captions grey images in the calling thread until nothing is left to build.

    batch_sizes: None means 1 and the model's batch_size and, on a GPU, every bucket below it. ONNX Runtime keeps CUDA
    graphs per thread: if they are on, each thread has to warm up for itself. Raises OptionsError.
    """
    on_device = model.on_device
    most = model.batch_size
    if batch_sizes is None:
        batch_sizes = sorted({1, most, *(size for size in BUCKETS if on_device and size < most)})
    for size in batch_sizes:
        require(is_int(size, 1) and size <= most, "warmup", "batch_sizes", size, f"whole numbers from 1 to {most}")
    spec = model.bundle.manifest.image
    image = np.full((spec.height, spec.width, 3), 127, np.uint8)
    warmed = []
    if model.encoder.lanes:
        model.encoder.encode_in_lane(image[None])
    for decoding in decodings:
        for size in batch_sizes:
            times = [time.perf_counter()]
            for _ in range(2):
                list(model.captions([image] * size, decoding))
                times.append(time.perf_counter())
            warmed.append(Warmed(size, decoding, times[1] - times[0], times[2] - times[1]))
    if on_device and batch_sizes:
        images = max(batch_sizes)
        # the widest first: growing the state's memory would discard earlier captures
        for decoding in sorted(decodings, key=partial(rows_per_image, defaults=model.bundle.manifest.defaults))[::-1]:
            _warm_steps(model, images, decoding)
        list(
            model.captions([image] * 3 * most, Greedy())
        )  # a batch is encoded while the previous one's features are still in use
    return warmed


def save_engines(model: Model) -> list[Path]:
    """Builds the engines of a model's graphs and saves them where its `engine_cache` says.

    Returns the files, or none if the provider builds no engines. Sessions load them as long as bundle, options,
    versions and GPU stay the same. Raises ProviderError and OSError.
    """
    graphs, bundle = model.graphs, model.bundle
    names = {graph.graph for graph in bundle.manifest.graphs} - {
        "decoder_step",
        "greedy_step",
    }  # the engine does not run these
    saved = (
        save_engine(bundle.path, bundle.graph(name, graphs.precision), graphs.placement.provider(name), graphs.options)
        for name in sorted(names)
    )
    return [path for path in saved if path is not None]


def _warm_steps(model: Model, batch_size: int, decoding: Decoding) -> None:
    """Runs a step in each bucket: which ones a decode needs depends on how early its images end."""
    manifest = model.bundle.manifest
    steps = model.start(np.zeros((batch_size, manifest.feature_size), np.float32))
    spy = _Spy(steps)
    decode(spy, decoding, model.constraints(decoding), model.bundle.vocabulary, manifest.defaults)
    most = bucket(batch_size * rows_per_image(decoding, manifest.defaults))
    for bias, run in spy.kinds.values():
        for rows in (most, *(size for size in BUCKETS[::-1] if size <= most)):  # the first one grows both slots
            zeros = np.zeros(rows, np.int64)
            for _ in range(2):  # one for each slot of state
                run(steps, zeros, bias if len(bias) == 1 else np.repeat(bias[:1], rows, axis=0))


class _Spy(StepModel):
    """Records the kinds of step in a decode, each with a mask and a function that runs it again."""

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
