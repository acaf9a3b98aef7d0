"""The competitors: the engine in each precision, and every baseline, in one table. Times and checks nothing.

Each competitor is made, and its library imported, on first use.
"""

import importlib
import importlib.util
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from benchmarks.baselines.search import FREE
from benchmarks.photographs import photographs
from engine import Captioner, RuntimeOptions
from engine.bundle.bundle import Bundle
from engine.images.load import load_for_model
from engine.options import Decoding

BATCHES = (1, 8, 32, 128)
ENGINE = "engine "
REFERENCE = "engine fp32"
IMAGES, ENCODER, DECODER, WHOLE, START = "images", "encoder", "decoder", "whole", "start"
"""Parts of the work from a file to a sentence; START is a new process up to its first caption."""


class Captioned(Protocol):
    """A sentence of any competitor."""

    @property
    def text(self) -> str: ...
    @property
    def score(self) -> float: ...


class Competitor(Protocol):
    """What every competitor can do; pixels are uint8 (batch, height, width, 3), or what a competitor makes of them."""

    def pixels(self, files: Sequence[bytes]) -> Any:
        """Decodes and resizes JPEG files."""

    def prepare(self, pixels: np.ndarray) -> Any:
        """Turns uint8 pixels into what `pixels` would have returned."""

    def levels(self, pixels: Any) -> np.ndarray:
        """Undoes `prepare`."""

    def encode(self, pixels: Any) -> np.ndarray:
        """Returns features float32 (batch, *feature_shape) of what `prepare` returned."""

    def stepper(self, features: np.ndarray) -> Callable[[], tuple[np.ndarray, np.ndarray]]:
        """Begins a decode whose every step reads START; a step returns the best ids and log-probs, (rows,)."""

    def decode(self, features: np.ndarray, decoding: Decoding) -> Sequence[Captioned]:
        """Features to sentences."""

    def caption(self, files: Sequence[bytes], decoding: Decoding) -> Sequence[Captioned]:
        """JPEG files to sentences."""


class Engine:
    """The engine: on ONNX Runtime's CPU in a precision of the bundle, or for "auto" as it chooses by itself."""

    def __init__(self, bundle: Bundle, threads: int = 0, precision: str = "fp32") -> None:
        provider = "auto" if precision == "auto" else "cpu"
        runtime = RuntimeOptions(threads=threads) if threads else None  # the engine may choose their number, too
        self.captioner = Captioner(bundle.path, provider=provider, precision=precision, runtime=runtime)
        self.pool = ThreadPoolExecutor(threads or os.cpu_count())
        vocabulary = bundle.vocabulary
        self.start_id = vocabulary.start_id
        self.bias = np.zeros((1, len(vocabulary)), np.float32)
        self.bias[:, list(vocabulary.never)] = -np.inf

    def pixels(self, files: Sequence[bytes]) -> Any:
        """See Competitor."""
        return np.stack(list(self.pool.map(self._pixels, files)))

    def _pixels(self, file: bytes) -> np.ndarray:
        quick = self.captioner.precision != "fp32"  # as the Captioner reads
        return load_for_model(file, self.captioner.bundle.manifest.image, quick=quick)

    def prepare(self, pixels: np.ndarray) -> Any:
        """See Competitor."""
        return list(pixels)

    def levels(self, pixels: Any) -> np.ndarray:
        """See Competitor."""
        return np.asarray(pixels)

    def encode(self, pixels: Any) -> np.ndarray:
        """See Competitor."""
        return self.captioner.encode(pixels)

    def stepper(self, features: np.ndarray) -> Callable[[], tuple[np.ndarray, np.ndarray]]:
        """See Competitor."""
        # No public method does a single step. This calls the engine's own code, so that it times what users run.
        steps, rows = self.captioner.model.start(features), np.arange(len(features))
        given = np.full(len(features), self.start_id)

        def step() -> tuple[np.ndarray, np.ndarray]:
            ids, log_probs = steps.step(given, rows, self.bias, 1)
            return ids[:, 0].copy(), log_probs[:, 0].copy()  # the next step writes over them

        return step

    def decode(self, features: np.ndarray, decoding: Decoding) -> Sequence[Captioned]:
        """See Competitor."""
        return self.captioner.caption_features(features, decoding)

    def caption(self, files: Sequence[bytes], decoding: Decoding) -> Sequence[Captioned]:
        """See Competitor."""
        return self.captioner.caption(files, decoding)


@dataclass(frozen=True, slots=True)
class Kind:
    """How a competitor is made, which parts of the way are its own, and whether what it computes is exactly fp32.

    precision: the one whose graphs it runs, which the bundle must hold. needs: a module that must be installed.
    exact_decoder: its decoder is exactly fp32, whatever its encoder: of portable steps, bundles hold no other.
    """

    module: str
    name: str
    parts: frozenset[str]
    options: Mapping[str, Any] = field(default_factory=dict)
    exact: bool = True
    precision: str = "fp32"
    needs: str = "numpy"
    exact_decoder: bool = False

    def make(self, bundle: Bundle, threads: int = 0) -> Competitor:
        """Imports the competitor's library and makes it."""
        competitor: Competitor = getattr(importlib.import_module(self.module), self.name)(
            bundle, threads, **self.options
        )
        return competitor

    def first_caption(self, bundle: Path, file: Path) -> str:
        """Returns the program that captions one file in a fresh process and prints the sentence."""
        if self.module == __name__:  # what a user writes: nothing of the benchmarks is imported
            given = f"{str(bundle)!r}, provider='cpu', precision={self.options['precision']!r}"
            decoding = f"Greedy(**{FREE!r})"
            return (
                f"from engine import Captioner, Greedy; "
                f"print(Captioner({given}).caption([{str(file)!r}], {decoding})[0].text)"
            )
        return (
            f"from {self.module} import {self.name}; "
            "from engine import Greedy; from engine.bundle.bundle import Bundle; "
            f"competitor = {self.name}(Bundle.load({str(bundle)!r}), **{dict(self.options)!r}); "
            f"print(competitor.caption([open({str(file)!r}, 'rb').read()], Greedy())[0].text)"
        )


ALL = frozenset((IMAGES, ENCODER, DECODER, WHOLE, START))
OF_GRAPHS = ALL - {IMAGES}
OPENVINO = ("benchmarks.baselines.direct_openvino", "DirectOpenvino")
BASELINES: dict[str, Kind] = {
    "eager": Kind("benchmarks.baselines.eager", "Eager", ALL),
    "careful": Kind("benchmarks.baselines.careful", "Careful", frozenset((IMAGES, ENCODER, WHOLE))),
    "compile": Kind("benchmarks.baselines.compiled", "Compiled", OF_GRAPHS - {START}),
    "onnxruntime": Kind("benchmarks.baselines.plain_session", "PlainSession", OF_GRAPHS),
    "openvino latency": Kind(*OPENVINO, OF_GRAPHS, needs="openvino"),
    "openvino throughput": Kind(*OPENVINO, frozenset((ENCODER, WHOLE)), {"hint": "THROUGHPUT"}, needs="openvino"),
    "onnxruntime int8": Kind(
        "benchmarks.baselines.plain_session",
        "PlainSession",
        OF_GRAPHS - {START},
        {"precision": "int8"},
        False,
        "int8",
        exact_decoder=True,
    ),
}
"""The baselines; a careful user decodes as an eager one does, and those without torchvision read images as he does."""
for _hint in ("latency", "throughput"):
    _parts = OF_GRAPHS - {START} if _hint == "latency" else frozenset((ENCODER, WHOLE))
    _given: dict[str, Any] = {
        "hint": _hint.upper(),
        "execution": None,
    }  # its own precision: bfloat16 where there is one
    BASELINES[f"openvino default {_hint}"] = Kind(*OPENVINO, _parts, _given, False, "fp32", "openvino")
    _given = {"hint": _hint.upper(), "precision": "int8"}
    BASELINES[f"openvino int8 {_hint}"] = Kind(*OPENVINO, _parts, _given, False, "int8", "openvino", True)


def kinds(bundle: Bundle) -> dict[str, Kind]:
    """Returns the competitors that can be measured with a bundle here, by name, the engine's own first.

    A precision without a separate decoder decodes in fp32, which is measured already.
    """
    engines = {
        f"{ENGINE}{precision}": Kind(
            __name__,
            "Engine",
            ALL,
            {"precision": precision},
            precision == "fp32",
            "fp32" if precision == "auto" else precision,
        )
        for precision in (*bundle.precisions, "auto")
    }
    graphs = {(graph.graph, graph.precision) for graph in bundle.manifest.graphs}
    with_decoder = {precision for graph, precision in graphs if graph != "encoder"}
    here = engines | {
        # attention's keys and values are computed in INT8 too, and the portable steps go on from them
        name: replace(kind, exact_decoder=kind.exact_decoder and ("decoder_init", kind.precision) not in graphs)
        for name, kind in BASELINES.items()
    }
    return {
        name: kind if kind.precision in with_decoder else replace(kind, parts=kind.parts - {DECODER})
        for name, kind in here.items()
        if kind.precision in bundle.precisions and importlib.util.find_spec(kind.needs)
    }


class Competitors:
    """The competitors of one bundle, with what they work on: JPEG files, their pixels and their features."""

    def __init__(self, bundle: Path | None = None, threads: int = 0, most: int = max(BATCHES)) -> None:
        """Takes the bundle that ships where none is named; 0 threads are as many as each library takes by itself."""
        self.bundle, self.threads = Bundle.load(bundle), threads
        self.kinds = kinds(self.bundle)
        self.made: dict[str, Competitor] = {}  # so far, by name
        self.expected: dict[Any, Any] = {}  # what the reference gave for a work and batch
        self.files = photographs(most)
        self.reference = self[REFERENCE]
        self.pixels = np.asarray(self.reference.pixels(self.files))
        self.features = self.reference.encode(self.reference.prepare(self.pixels))

    def __getitem__(self, name: str) -> Competitor:
        if name not in self.made:
            self.made[name] = self.kinds[name].make(self.bundle, self.threads)
        return self.made[name]
