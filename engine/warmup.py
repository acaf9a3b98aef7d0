"""Warm-up: builds all sessions, engines and CUDA graphs in advance, and saves engines for other processes."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from engine.bundle.bundle import VECTOR_GRAPHS
from engine.decoding.decode import draws_of, make_search, rows_per_image
from engine.decoding.step_request import StepRequest
from engine.model import Model
from engine.options import Beam, Decoding, Greedy
from engine.runtime.cuda.buckets import BUCKETS, bucket
from engine.runtime.sessions import save_engine
from engine.validation import is_int, require

NEVER_RUN = {"decoder_step", *VECTOR_GRAPHS}  # graphs of a bundle that captions do not need


@dataclass(frozen=True, slots=True)
class Warmed:
    """How long the first and the second call for a batch took, in seconds."""

    batch_size: int
    decoding: Decoding
    first: float
    second: float


def warm_up(
    model: Model, batch_sizes: Sequence[int] | None = None, decodings: Sequence[Decoding] = (Greedy(), Beam())
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
        # a batch is encoded while the previous one's features are still in use
        list(model.captions([image] * 3 * most, Greedy()))
    return warmed


def save_engines(model: Model) -> list[Path]:
    """Builds the engines of a model's graphs and saves them where its `engine_cache` says.

    Returns the files, or none if the provider builds no engines. Sessions load them as long as bundle, options,
    versions and GPU stay the same. Raises ProviderError and OSError.
    """
    graphs, bundle = model.graphs, model.bundle
    saved = (
        save_engine(bundle.path, bundle.graph(name, graphs.precision), graphs.placement.provider(name), graphs.options)
        for name in sorted({graph.graph for graph in bundle.manifest.graphs} - NEVER_RUN)
    )
    return [path for path in saved if path is not None]


def _warm_steps(model: Model, images: int, decoding: Decoding) -> None:
    """Runs each kind of step of a decode in each bucket: which ones it needs depends on how early its images end."""
    manifest = model.bundle.manifest
    steps = model.start(np.zeros((images, *manifest.feature_shape), np.float32))
    search = make_search(decoding, model.constraints(decoding), manifest.defaults)
    search.add(range(images), np.arange(images), draws_of([decoding] * images))
    kinds: dict[tuple[int, bool], StepRequest] = {}
    while search.owners:
        request = search.next_step()
        kinds.setdefault((request.k, len(request.bias) == 1), request)
        search.advance(*request.run(steps))
    most = bucket(images * rows_per_image(decoding, manifest.defaults))
    for request in kinds.values():
        for rows in (most, *(size for size in BUCKETS[::-1] if size <= most)):  # the first one grows both slots
            zeros = np.zeros(rows, np.int64)
            bias = request.bias if len(request.bias) == 1 else request.bias[zeros]
            heats, uniforms = (
                each if each is None else each[zeros] for each in (request.temperatures, request.uniforms)
            )
            for _ in range(2):  # one for each slot of state
                replace(
                    request, token_ids=zeros, parent_rows=zeros, bias=bias, temperatures=heats, uniforms=uniforms
                ).run(steps)
