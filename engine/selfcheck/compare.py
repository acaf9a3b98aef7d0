"""Compares what graphs compute with a reference, through the same calls that captions use. Saves nothing.

A provider may be installed, start, and still write wrong sentences: because it copies inputs when they are bound,
because the processor saturates 8-bit sums, or because a driver rounds. So the check covers more than one run: batches
of several sizes, several steps in a row, reused memory, rows that leave, k above 1, and images that join later.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from engine.bundle.bundle import Bundle
from engine.decoding.step_model import StepModel
from engine.images.load import load_for_model
from engine.runtime.encoder import LANE_IMAGES, WIDE_IMAGES
from engine.runtime.graphs import Graphs

PHOTOGRAPHS = 3
LEAST_NORM = 1e-9  # smallest norm of features to divide by
FIRST = "decoder_init with search_step"
BEAMS = [[0, 0, 1, 1, 2, 2, 2], [6, 5, 4, 3, 2, 1, 0], [0, 1, 2, 3, 4, 5, 6], [3, 3, 1, 1, 6, 0, 0]]
"""Parent rows: images are expanded to beams, which are then reordered in reused memory."""
MANY = 96  # rows of a large batch
CAPACITY = 16  # rows of the batch that images join later

SAME = {"fp32": (1e-3, 2e-3), "fp16": (1e-2, 5e-2), "integers": (0.1, 0.25)}
"""Largest allowed differences from the CPU in the same precision: for features |found - expected| / |expected| per
image, then for the log-probability of a word in nats. "integers" stands for every precision that is not named."""
ROUNDED = {"fp16": (2e-2, 0.1), "integers": (0.3, 0.6)}
"""Largest allowed differences from the CPU in fp32, for other precisions."""


@dataclass(frozen=True, slots=True)
class Difference:
    """The largest difference found in a graph's results, and the largest allowed."""

    graph: str
    found: float
    allowed: float

    @property
    def passed(self) -> bool:
        """Whether the difference is allowed; NaN is not."""
        return self.found <= self.allowed

    def __str__(self) -> str:
        return f"{self.graph} differs by {self.found:.2g} where {self.allowed:g} is allowed"


def compare(graphs: Graphs, reference: Graphs, batch_size: int) -> list[Difference]:
    """Returns the largest difference of each graph. batch_size: most images that will be encoded at once."""
    arithmetic = arithmetic_of(graphs)
    table = SAME if arithmetic == reference.precision else ROUNDED
    most_features, most_nats = table.get(arithmetic, table["integers"])
    pixels = _pixels(graphs.bundle)
    features = np.asarray(reference.encoder.encode(pixels))
    off = max(_encoded(graphs, pixels, features, batch_size), key=lambda found: (np.isnan(found), found))
    walk = _Walk(graphs, reference, features)
    walk.run()
    walked = [Difference(name, worst, most_nats) for name, worst in walk.worst.items()]
    return [Difference("encoder", off, most_features), *walked]


def arithmetic_of(graphs: Graphs) -> str:
    """Returns the precision that graphs may really compute in: some options let providers round fp32."""
    options, encoder = graphs.options, graphs.placement.encoder.name
    tf32 = options.tf32 and any(provider.device == "cuda" for provider in graphs.placement.providers)
    half = tf32 or (options.fp16 and encoder == "tensorrt")
    return "fp16" if half and graphs.precision == "fp32" else graphs.precision


def _pixels(bundle: Bundle) -> np.ndarray:
    from engine.images.synthetic import draw_photographs  # slow to import and seldom needed

    photographs = [load_for_model(each, bundle.manifest.image) for each in draw_photographs(PHOTOGRAPHS)]
    return np.stack(photographs)  # (photographs, height, width, 3)


def _encoded(graphs: Graphs, pixels: np.ndarray, expected: np.ndarray, batch_size: int) -> Iterator[float]:
    """Yields how far features are off, for each way to call the encoder, in batches of falling and rising size.

    The largest batch is the largest that runs, plus one image if batches are split. On the CPU that does not depend on
    the batch size, so one pass counts for all of them.
    """
    encoder, provider = graphs.encoder, graphs.placement.encoder
    ways: list[tuple[Callable[[np.ndarray], Any], int]] = [(encoder.encode, WIDE_IMAGES + 1)]
    if provider.device != "cpu":
        ways = [(encoder.encode, batch_size)]
    elif provider.cache is not None:  # its engine is built for no more
        ways = [(encoder.encode, min(batch_size, WIDE_IMAGES + 1))]
    elif encoder.lanes:
        ways.append((encoder.encode_in_lane, LANE_IMAGES + 1))
    for encode, most in ways:
        few = min(PHOTOGRAPHS, most)  # an engine built for one image accepts no more
        for images in (few, 1, most, few):
            shown = (np.arange(images) + images) % PHOTOGRAPHS  # not always beginning with the first one
            found, right = np.asarray(encode(pixels[shown]), np.float64), expected[shown].astype(np.float64)
            found, right = found.reshape(images, -1), right.reshape(images, -1)
            off = np.linalg.norm(found - right, axis=1) / np.maximum(np.linalg.norm(right, axis=1), LEAST_NORM)
            yield float(np.max(off))


class _Walk:
    """Runs two models through the same steps, with the words that the reference finds likeliest."""

    def __init__(self, graphs: Graphs, reference: Graphs, features: np.ndarray) -> None:
        manifest = graphs.bundle.manifest
        self.worst: dict[str, float] = {}  # by graph
        self._pair = graphs, reference
        self._features = features
        self._start = graphs.bundle.vocabulary.start_id
        self._open = np.zeros((1, manifest.vocabulary_size), np.float32)
        self._random = np.random.default_rng(0)
        self._models: tuple[StepModel, StepModel]

    def run(self) -> None:
        """Decodes a batch with all its images from the start, then one that images join later."""
        self._models = tuple(graphs.start(self._features) for graphs in self._pair)  # type: ignore[assignment]
        tokens = np.full(PHOTOGRAPHS, self._start)
        tokens = self._search(tokens, np.arange(PHOTOGRAPHS), 4, name=FIRST)
        for parents in map(np.array, BEAMS):
            tokens = self._search(tokens[parents], parents, 4)
        for parents in (np.arange(MANY) % len(tokens), np.arange(MANY)[::-1]):
            tokens = self._search(tokens[parents], parents, 4)
        few = np.array([1, 3])  # the other rows leave
        tokens = self._search(tokens[few], few, 2, self._some_words(2))
        self._choose_alone()
        self._models = tuple(graphs.start_empty(CAPACITY) for graphs in self._pair)  # type: ignore[assignment]
        tokens = self._search(np.full(2, self._start), self._admit(slice(0, 2)), 4, name=FIRST)
        parents = np.concatenate((np.broadcast_to(np.arange(2), (2, 2)), self._admit(slice(2, 3))), axis=1)
        tokens = self._search(np.append(tokens, self._start), parents, 4)
        self._search(tokens[:2], np.arange(2), 4, self._some_words(2))
        self._choose_alone()

    def _choose_alone(self) -> None:
        """Runs two rows through sample_step, so often that each slot of state is read and written three times."""
        for temperatures in ((0.5, 1.5), (1.5, 0.5), (1, 1), (0.7, 5), (2, 0.7), (1, 3)):
            words = self._random.integers(0, self._open.shape[1], 2)  # likely or not: then distributions differ more
            self._draw(words, np.array(temperatures, np.float32))

    def _admit(self, images: slice) -> np.ndarray:
        """Returns the rows with the images' states, int64 (models, images): row numbers differ between models."""
        return np.stack([model.admit([self._features[images]]) for model in self._models])

    def _search(
        self, tokens: np.ndarray, parents: np.ndarray, k: int, bias: np.ndarray | None = None, name: str = "search_step"
    ) -> np.ndarray:
        """Compares a step; returns the reference's likeliest tokens, for the next one."""
        bias, parents = self._open if bias is None else bias, np.broadcast_to(parents, (2, len(tokens)))
        ids, log_probs = self._models[0].step(tokens, parents[0], bias, min(k, bias.shape[1]))
        by_id = self._expected(tokens, parents[1], bias)
        self._note(name, log_probs, -np.sort(-by_id, axis=1)[:, : ids.shape[1]])
        self._note(name, log_probs, np.take_along_axis(by_id, ids, axis=1))
        likeliest: np.ndarray = by_id.argmax(axis=1)
        return likeliest

    def _draw(self, tokens: np.ndarray, temperatures: np.ndarray) -> None:
        rows, bias = np.arange(len(tokens)), self._some_words(len(tokens))
        uniforms = self._random.random(len(tokens), np.float32)
        ids, log_probs = self._models[0].draw(tokens, rows, bias, temperatures, uniforms)
        by_id = self._expected(tokens, rows, bias)
        self._note("sample_step", log_probs, by_id[rows, ids])
        p = np.exp((by_id - by_id.max(axis=1, keepdims=True)) / temperatures[:, None])
        end = (p.cumsum(axis=1) / p.sum(axis=1, keepdims=True))[rows, ids]
        begin = end - (p / p.sum(axis=1, keepdims=True))[rows, ids]
        self._note("sample_step", np.clip(uniforms, begin, end), uniforms)  # the word's part of [0, 1]

    def _expected(self, tokens: np.ndarray, parents: np.ndarray, bias: np.ndarray) -> np.ndarray:
        """Runs the step on the reference; returns its log-probabilities by id, float64 (rows, vocabulary)."""
        ids, log_probs = self._models[1].step(tokens, parents, bias, bias.shape[1])
        by_id = np.empty(log_probs.shape)
        np.put_along_axis(by_id, ids, log_probs, axis=1)
        return by_id

    def _some_words(self, rows: int) -> np.ndarray:
        """Returns a bias for each row that allows about half of the words, float32 (rows, vocabulary)."""
        allowed = self._random.random((rows, self._open.shape[1])) < 0.5
        allowed[:, :2] = True  # some, even in the smallest vocabulary
        return np.where(allowed, 0, -np.inf).astype(np.float32)

    def _note(self, name: str, found: np.ndarray, expected: np.ndarray) -> None:
        same = found == expected  # -inf too
        with np.errstate(invalid="ignore"):
            worst = float(np.max(np.where(same, 0, np.abs(found - expected))))
        self.worst[name] = float(np.max([self.worst.get(name, 0.0), worst]))
