"""Shows that graphs compute here what they ought to, before anybody trusts them. Chooses and measures no speed.

A provider may be there, start, and write other sentences: one that copies what was bound once, a processor that
saturates 8-bit sums, a driver that rounds. So graphs go through the very calls that captions go through: batches of
several sizes, several steps in a row, memory that is used again, rows that leave, k above 1, images that come later.
The CPU in the same precision is what they are compared with, and it itself is compared in fp32. What was shown is kept
in the user's cache, for this bundle with these versions on this hardware.
"""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from engine.bundle import MANIFEST_FILE, Bundle, sha256
from engine.cache import cache_folder, store
from engine.decoding.model import StepModel
from engine.errors import EngineError, ProviderError
from engine.images import load_pixels
from engine.machine import runtime_facts
from engine.runtime.graphs import Graphs
from engine.runtime.options import RuntimeOptions
from engine.runtime.placement import Placement
from engine.vocabulary import START

VERSION = 1
"""Raised when more is checked: what an earlier check let pass is checked again."""
PHOTOGRAPHS = 3
LEAST_NORM = 1e-9  # of features that differences are divided by
FIRST = "decoder_init with search_step"
BEAMS = [[0, 0, 1, 1, 2, 2, 2], [6, 5, 4, 3, 2, 1, 0], [0, 1, 2, 3, 4, 5, 6], [3, 3, 1, 1, 6, 0, 0]]
"""Rows that are continued: images are expanded to beams, which are then reordered in memory that is filled anew."""
CAPACITY = 16  # rows of the batch that images join
DECIDING = ("tf32", "fp16", "cuda_graphs", "cudnn_conv_algo_search")
"""The fields of RuntimeOptions that decide what is computed."""
SAME = {"fp32": (1e-3, 2e-3), "fp16": (1e-2, 5e-2)}
"""Largest differences from the CPU in the same precision: of features, |found - expected| / |expected| for an image; of
the log-probability of a word, in nats."""
SAME_INTEGERS = (0.1, 0.25)
ROUNDED = {"fp16": (2e-2, 0.1)}
"""The same of the CPU in a precision from the CPU in fp32."""
ROUNDED_INTEGERS = (0.5, 1.0)


@dataclass(frozen=True, slots=True)
class Difference:
    """The largest difference found of what a graph computes, and the largest allowed."""

    graph: str
    found: float
    allowed: float

    @property
    def passed(self) -> bool:
        """Whether it is within what is allowed; a difference that is no number is not."""
        return self.found <= self.allowed

    def __str__(self) -> str:
        return f"{self.graph} differs by {self.found:.2g} where {self.allowed:g} is allowed"


def require_shown(graphs: Graphs) -> None:
    """Raises ProviderError unless the graphs were shown, now or before, to compute what they ought to."""
    reference = _reference(graphs)
    if reference is None or _is_kept(graphs):
        return
    require_shown(reference)
    try:
        differences = compare(graphs, reference)
    except EngineError:
        raise
    except Exception as error:  # whatever a provider raises in its runs
        raise ProviderError(
            f"provider {graphs.placement.name!r} in {graphs.precision} cannot compute here what "
            f"{reference.placement.name} in {reference.precision} computes: {' '.join(str(error).split())}"
        ) from error
    if failed := [difference for difference in differences if not difference.passed]:
        raise ProviderError(
            f"provider {graphs.placement.name!r} in {graphs.precision} does not compute here what "
            f"{reference.placement.name} in {reference.precision} computes: {'; '.join(map(str, failed))}. "
            "Choose another provider or precision, or other versions of ONNX Runtime and its plug-ins"
        )
    _keep(graphs, differences)


def compare(graphs: Graphs, reference: Graphs) -> list[Difference]:
    """Returns the largest difference that each graph shows."""
    tables = (SAME, SAME_INTEGERS) if graphs.precision == reference.precision else (ROUNDED, ROUNDED_INTEGERS)
    most_features, most_nats = tables[0].get(graphs.precision, tables[1])
    pixels = _pixels(graphs.bundle)
    features = reference.encoder.encode(pixels)
    found = [Difference("encoder", float(np.max(list(_encoded(graphs, pixels, np.asarray(features))))), most_features)]
    walk = _Walk(graphs, reference, np.asarray(features))
    walk.run()
    return found + [Difference(name, worst, most_nats) for name, worst in walk.worst.items()]


def forget(bundle: Bundle) -> int:
    """Deletes what was shown of a bundle; returns the number of files."""
    folder = _folder()
    files = [] if folder is None else list(folder.glob(f"{_prefix(bundle)}-*.json"))
    for file in files:
        file.unlink(missing_ok=True)
    return len(files)


# --- what is compared


def _reference(graphs: Graphs) -> Graphs | None:
    """Returns what graphs are compared with; None for those that everything is compared with in the end."""
    cpu = Placement.of("cpu")
    if graphs.placement != cpu:
        return Graphs(graphs.bundle, cpu, graphs.precision, RuntimeOptions())
    if graphs.precision != "fp32":
        return Graphs(graphs.bundle, cpu, "fp32", RuntimeOptions())
    return None


def _pixels(bundle: Bundle) -> np.ndarray:
    from engine.photographs import draw_photographs  # the drawing takes a while to import, and is seldom needed

    image = bundle.manifest.image
    photographs = draw_photographs(PHOTOGRAPHS)
    size: dict[str, Any] = {"height": image.height, "width": image.width, "resample": image.resample}
    return np.stack([load_pixels(photograph, **size) for photograph in photographs])  # (photographs, height, width, 3)


def _encoded(graphs: Graphs, pixels: np.ndarray, expected: np.ndarray) -> Iterator[float]:
    """Yields how far features are off: of batches of falling and rising size, by every way to the encoder."""
    ways = (graphs.encoder.encode, graphs.encoder.encode_in_lane) if graphs.encoder.lanes else (graphs.encoder.encode,)
    for encode in ways:
        for first, last in ((0, 3), (2, 3), (0, 2), (0, 3)):
            found = np.asarray(encode(pixels[first:last]), np.float64)
            right = expected[first:last].astype(np.float64)
            off = np.linalg.norm(found - right, axis=1) / np.maximum(np.linalg.norm(right, axis=1), LEAST_NORM)
            yield float(np.max(off))


class _Walk:
    """Takes two models through the same steps, with the words that the reference holds likeliest."""

    def __init__(self, graphs: Graphs, reference: Graphs, features: np.ndarray) -> None:
        manifest = graphs.bundle.manifest
        self.worst: dict[str, float] = {}  # by graph
        self._pair = graphs, reference
        self._features = features
        self._start = manifest.special_ids[START]
        self._open = np.zeros((1, manifest.vocabulary_size), np.float32)
        self._random = np.random.default_rng(0)
        self._models: tuple[StepModel, StepModel]

    def run(self) -> None:
        """Steps through a batch whose images are there from the start, then through one that images join."""
        self._models = tuple(graphs.start(self._features) for graphs in self._pair)  # type: ignore[assignment]
        tokens = np.full(PHOTOGRAPHS, self._start)
        tokens = self._search(tokens, np.arange(PHOTOGRAPHS), 4, name=FIRST)
        for parents in map(np.array, BEAMS):
            tokens = self._search(tokens[parents], parents, 4)
        few = np.array([1, 3])  # the other rows leave
        tokens = self._search(tokens[few], few, 2, self._some_words(2))
        for _ in range(6):  # state lies in two places by turns: each is read and written three times
            self._best(self._any_words(2))
        for temperatures in ((0.5, 1.5), (1.5, 0.5), (1, 1), (0.7, 5), (2, 0.7), (1, 3)):
            self._draw(self._any_words(2), np.array(temperatures, np.float32))
        self._models = tuple(graphs.begin(CAPACITY) for graphs in self._pair)  # type: ignore[assignment]
        tokens = self._search(np.full(2, self._start), self._admit(slice(0, 2)), 4, name=FIRST)
        parents = np.concatenate((np.broadcast_to(np.arange(2), (2, 2)), self._admit(slice(2, 3))), axis=1)
        self._search(np.append(tokens, self._start), parents, 4)

    def _admit(self, images: slice) -> np.ndarray:
        """Returns the rows that hold the images' states, int64 (models, images): each model has rows of its own."""
        return np.stack([model.admit([self._features[images]]) for model in self._models])

    def _search(
        self, tokens: np.ndarray, parents: np.ndarray, k: int, bias: np.ndarray | None = None, name: str = "search_step"
    ) -> np.ndarray:
        """Compares a step; returns the tokens of the next one, which the reference holds likeliest."""
        bias, parents = self._open if bias is None else bias, np.broadcast_to(parents, (2, len(tokens)))
        ids, log_probs = self._models[0].step(tokens, parents[0], bias, min(k, bias.shape[1]))
        by_id = self._expected(tokens, parents[1], bias)
        self._note(name, log_probs, -np.sort(-by_id, axis=1)[:, : ids.shape[1]])
        self._note(name, log_probs, np.take_along_axis(by_id, ids, axis=1))
        likeliest: np.ndarray = by_id.argmax(axis=1)
        return likeliest

    def _best(self, tokens: np.ndarray) -> None:
        rows = np.arange(len(tokens))
        ids, _ = self._models[0].best(tokens, rows, self._open)
        by_id = self._expected(tokens, rows, self._open)
        self._note("greedy_step", by_id[rows, ids], by_id.max(axis=1))

    def _draw(self, tokens: np.ndarray, temperatures: np.ndarray) -> None:
        rows, bias = np.arange(len(tokens)), self._some_words(len(tokens))
        uniforms = self._random.random(len(tokens), np.float32)
        ids, log_probs = self._models[0].draw(tokens, rows, bias, temperatures, uniforms)
        by_id = self._expected(tokens, rows, bias)
        self._note("sample_step", log_probs, by_id[rows, ids])
        p = np.exp((by_id - by_id.max(axis=1, keepdims=True)) / temperatures[:, None])
        end = (p.cumsum(axis=1) / p.sum(axis=1, keepdims=True))[rows, ids]
        begin = end - (p / p.sum(axis=1, keepdims=True))[rows, ids]
        self._note("sample_step", np.clip(uniforms, begin, end), uniforms)  # the part of [0, 1] that is the word's

    def _expected(self, tokens: np.ndarray, parents: np.ndarray, bias: np.ndarray) -> np.ndarray:
        """Takes the reference through the step; returns its log-probabilities by id, float64 (rows, vocabulary)."""
        ids, log_probs = self._models[1].step(tokens, parents, bias, bias.shape[1])
        by_id = np.empty(log_probs.shape)
        np.put_along_axis(by_id, ids, log_probs, axis=1)
        return by_id

    def _any_words(self, rows: int) -> np.ndarray:
        """Returns a token for each row, likely or not, int64 (rows,): what follows differs the more."""
        return self._random.integers(0, self._open.shape[1], rows)

    def _some_words(self, rows: int) -> np.ndarray:
        """Returns a bias for each row that allows about half of the words, float32 (rows, vocabulary)."""
        allowed = self._random.random((rows, self._open.shape[1])) < 0.5
        allowed[:, :2] = True  # even of the smallest vocabulary some
        return np.where(allowed, 0, -np.inf).astype(np.float32)

    def _note(self, name: str, found: np.ndarray, expected: np.ndarray) -> None:
        same = found == expected  # -inf too
        with np.errstate(invalid="ignore"):
            worst = float(np.max(np.where(same, 0, np.abs(found - expected))))
        self.worst[name] = float(np.max([self.worst.get(name, 0.0), worst]))


# --- what is kept


def _facts(graphs: Graphs) -> dict[str, Any]:
    """Returns all that the outcome depends on, as plain JSON values."""
    return {
        "check": VERSION,
        "bundle": sha256(graphs.bundle.path / MANIFEST_FILE),  # which holds the SHA-256 of every other file
        "placement": graphs.placement.name,
        "precision": graphs.precision,
        "options": {name: getattr(graphs.options, name) for name in DECIDING},
        "runtime": runtime_facts(graphs.placement.providers, graphs.options.device_id),
    }


def _is_kept(graphs: Graphs) -> bool:
    path = _path(graphs)
    try:
        return path is not None and bool(json.loads(path.read_bytes())["facts"] == _facts(graphs))
    except (OSError, ValueError, TypeError, KeyError, RecursionError):  # nothing there, or nothing that can be read
        return False


def _keep(graphs: Graphs, differences: list[Difference]) -> None:
    """Writes what was shown; where nothing can be written it is shown again next time."""
    if (path := _path(graphs)) is not None:
        data = {"facts": _facts(graphs), "differences": [asdict(difference) for difference in differences]}
        store(path, json.dumps(data, indent=1).encode())


def _path(graphs: Graphs) -> Path | None:
    import hashlib  # likewise

    facts = json.dumps(_facts(graphs), sort_keys=True)
    folder = _folder()
    return folder and folder / f"{_prefix(graphs.bundle)}-{hashlib.sha256(facts.encode()).hexdigest()[:16]}.json"


def _prefix(bundle: Bundle) -> str:
    return sha256(bundle.path / MANIFEST_FILE)[:16]


def _folder() -> Path | None:
    folder = cache_folder()
    return folder and folder / "checks"
