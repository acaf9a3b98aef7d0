"""Compares a bundle with PyTorch: each graph, and whole sentences. Owns the checks and tolerances.

Changes nothing and knows nothing of how the graphs were made.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path

import numpy as np
import onnxruntime as ort
import torch
from torch import nn

from engine.bundle.bundle import GRAPHS, Bundle
from engine.images.load import ImageInput, load_for_model
from export.decode import Arrays, Decoded, EngineGreedy, OnnxDecoder, TorchDecoder, decode_error, greedy

BATCH_SIZES = (1, 2, 7, 32)
CANDIDATES = 6
TEMPERATURES = 0.5, 2.0
SEED = 0

TOLERANCES = {"encoder": 1e-4, "decoder_init": 1e-5, "decoder_step": 1e-4, "search_step": 1e-4, "sample_step": 1e-4}
TOLERANCES["greedy decode"] = 1e-4
"""Largest allowed errors: for features and first states relative to the largest value (at least 1), otherwise absolute.
Correct exports stay 30 to 100 times below; a wrong weight or normalisation is far above."""


@dataclass(frozen=True, slots=True)
class Check:
    """One comparison over several batch sizes: the largest error found and the largest allowed."""

    name: str
    error: float
    tolerance: float
    batch_sizes: tuple[int, ...]

    @property
    def passed(self) -> bool:
        """Whether the error is within the tolerance (NaN is not)."""
        return self.error <= self.tolerance


def verify(folder: Path, encoder: nn.Module, decoder: nn.Module, pictures: Sequence[ImageInput]) -> tuple[Check, ...]:
    """Compares a bundle's graphs, and the engine's sentences, with PyTorch on the CPU.

    Every check runs on random inputs or on `pictures`, repeated to fill the batch sizes.
    """
    return tuple(_Verification(Bundle.load(folder), encoder, decoder, pictures).checks())


def table(checks: Sequence[Check]) -> str:
    """Returns checks as a table of text."""
    width = max(len(check.name) for check in checks)
    lines = [f"{'check':{width}}  {'batch sizes':12}  {'max error':>9}  {'tolerance':>9}"]
    for check in checks:
        sizes = " ".join(map(str, check.batch_sizes))
        verdict = "ok" if check.passed else "BEYOND TOLERANCE"
        lines.append(f"{check.name:{width}}  {sizes:12}  {check.error:9.1e}  {check.tolerance:9.1e}  {verdict}")
    return "\n".join(lines)


class _Verification:
    def __init__(self, bundle: Bundle, encoder: nn.Module, decoder: nn.Module, pictures: Sequence[ImageInput]) -> None:
        self.bundle, self.encoder, self.decoder = bundle, encoder, TorchDecoder(decoder)
        self.random = np.random.default_rng(SEED)
        self.pictures = list(islice(cycle(pictures), max(BATCH_SIZES)))
        image = bundle.manifest.image
        pixels = [load_for_model(picture, image) for picture in pictures]
        self.pixels = np.stack(list(islice(cycle(pixels), max(BATCH_SIZES))))  # (32, height, width, 3)
        self.following = [each.next for each in bundle.manifest.state]
        self.sessions = {
            graph: ort.InferenceSession(bundle.path / bundle.graph(graph).file, providers=["CPUExecutionProvider"])
            for graph in GRAPHS
        }
        self.portable = OnnxDecoder(bundle.manifest, self.sessions["decoder_init"], self.sessions["decoder_step"])

    def checks(self) -> Iterator[Check]:
        """Runs one check after another."""
        random = self.random.integers(0, 256, self.pixels.shape, dtype=np.uint8)
        yield self._encode("encoder, random pixels", random, _torch_features(self.encoder, random))
        features = _torch_features(self.encoder, self.pixels)  # (32, *feature_shape)
        yield self._encode("encoder, photographs", self.pixels, features)
        noise = self.random.random(features.shape, dtype=np.float32)
        yield _check("decoder_init, random features", lambda n: self._init(noise[:n]))
        yield _check("decoder_init, photographs", lambda n: self._init(features[:n]))
        yield _check("decoder_step, random states", self._step)
        yield _check("search_step, one bias", lambda n: self._search(n, bias_rows=1))
        yield _check("search_step, bias per row", lambda n: self._search(n, bias_rows=n))
        yield _check("sample_step, bias per row", self._sample)
        yield from self._sentences(features)

    def _encode(self, name: str, pixels: np.ndarray, expected: np.ndarray) -> Check:
        def error(n: int) -> float:
            features = self.sessions["encoder"].run(["features"], {"pixels": pixels[:n]})[0]
            return _distance(features, expected[:n]) / _scale(expected)

        return _check(name, error)

    def _init(self, features: np.ndarray) -> float:
        pairs = zip(_flat(self.portable.start(features)), _flat(self.decoder.start(features)), strict=True)
        return max(_distance(found, expected) / _scale(expected) for found, expected in pairs)

    def _start(self, images: int) -> tuple[Arrays, Arrays]:
        """Draws features; returns state and context of images, each after two random words."""
        shape = (images, *self.bundle.manifest.feature_shape)
        state, context = self.decoder.start(self.random.random(shape, dtype=np.float32))
        for _ in range(2):
            _, state = self.decoder.step(self._words(images), state, context)
        return state, context

    def _words(self, rows: int) -> np.ndarray:
        return self.random.integers(0, self.bundle.manifest.vocabulary_size, rows)

    def _step(self, rows: int) -> float:
        token_ids, (state, context) = self._words(rows), self._start(rows)
        log_probs, following = self.portable.step(token_ids, state, context)
        expected, expected_following = self.decoder.step(token_ids, state, context)
        return max(_distance(log_probs, expected), *map(_distance, following, expected_following))

    def _search(self, rows: int, bias_rows: int) -> float:
        """Compares the fused step with a gather, a step and a sort in numpy; ties may go either way."""
        inputs, biased, expected_following = self._expect(rows, bias_rows)
        vocabulary = biased.shape[1]
        k = min(CANDIDATES, vocabulary - 1)
        outputs = ["ids", "log_probs", *self.following]
        ids, log_probs, *following = self.sessions["search_step"].run(outputs, {**inputs, "k": np.array([k])})
        if any(len(set(row)) != k for row in ids.tolist()):
            return np.inf
        best_first = -np.sort(-biased, axis=1)[:, :k]
        return max(
            _distance(log_probs, best_first),
            _distance(log_probs, np.take_along_axis(biased, ids, axis=1)),
            *map(_distance, following, expected_following),
        )

    def _sample(self, rows: int) -> float:
        """Returns how far the drawn word is from its number in the distribution, or scores and states are off."""
        inputs, biased, expected_following = self._expect(rows, bias_rows=rows)
        uniforms = 1 - self.random.random(rows, dtype=np.float32)
        temperature = self.random.uniform(*TEMPERATURES, rows).astype(np.float32)
        inputs |= {"uniforms": uniforms, "temperature": temperature}
        outputs = ["ids", "log_probs", *self.following]
        ids, log_probs, *following = self.sessions["sample_step"].run(outputs, inputs)
        mass = np.exp(biased.astype(np.float64) / temperature[:, None])
        cumulative = (mass / mass.sum(axis=1, keepdims=True)).cumsum(axis=1)  # (rows, vocabulary)
        taken = np.arange(rows), ids
        below, above = cumulative[taken] - (mass / mass.sum(axis=1, keepdims=True))[taken], cumulative[taken]
        missed = np.maximum(below - uniforms, uniforms - above).max(initial=0.0)
        return max(float(missed), _distance(log_probs, biased[taken]), *map(_distance, following, expected_following))

    def _expect(self, rows: int, bias_rows: int) -> tuple[dict[str, np.ndarray], np.ndarray, Arrays]:
        """Draws the inputs of a search's step; returns them, the biased log-probabilities and the next state.

        The numbers of rows, of states to gather and of images differ, and so do the orders.
        """
        manifest, token_ids = self.bundle.manifest, self._words(rows)
        state, context = self._start(rows + 3)
        parents, image_rows = self.random.integers(0, rows + 3, (2, rows))
        bias = self.random.standard_normal((bias_rows, manifest.vocabulary_size), dtype=np.float32)
        bias[:, self.random.integers(0, manifest.vocabulary_size)] = -np.inf  # a suppressed word
        inputs = {"token_ids": token_ids, "parent_rows": parents, "bias": bias}
        inputs |= {each.name: array for each, array in zip(manifest.state, state, strict=True)}
        if context:
            inputs |= {part.name: array for part, array in zip(manifest.context, context, strict=True)}
            inputs["image_rows"] = image_rows
        gathered = tuple(array[parents] for array in state), tuple(array[image_rows] for array in context)
        scores, following = self.decoder.step(token_ids, *gathered)
        return inputs, scores + bias, following

    def _sentences(self, features: np.ndarray) -> Iterator[Check]:
        """Compares greedy decodes, word for word, of the portable step and of the engine."""
        words, longest = self.bundle.vocabulary, self.bundle.manifest.defaults.max_length
        engine = EngineGreedy(self.bundle)

        def error(decoded: Decoded) -> float:
            return decode_error(self.decoder, features[: len(decoded.ids)], decoded, words)

        portable = "greedy decode, portable step"
        yield _check(portable, lambda n: error(greedy(self.portable, features[:n], words, longest)))
        yield _check("greedy decode, engine on features", lambda n: error(engine.from_features(features[:n])))
        yield _check("greedy decode, engine on photographs", lambda n: error(engine.from_pictures(self.pictures[:n])))


def _check(name: str, error: Callable[[int], float]) -> Check:
    return Check(name, max(error(n) for n in BATCH_SIZES), TOLERANCES[name.split(",")[0]], BATCH_SIZES)


def _flat(started: tuple[Arrays, Arrays]) -> Arrays:
    return (*started[0], *started[1])


def _distance(found: np.ndarray, expected: np.ndarray) -> float:
    """Returns the largest absolute difference; infinity if shape or type differ or values are not finite."""
    if found.shape != expected.shape or found.dtype != expected.dtype:
        return np.inf
    with np.errstate(invalid="ignore"):
        distance = float(np.abs(found - expected).max(initial=0.0))
    return distance if np.isfinite(distance) else np.inf


def _scale(values: np.ndarray) -> float:
    """Returns the largest magnitude, at least 1: untrained encoders can give features of any size."""
    return max(1.0, float(np.abs(values).max(initial=0.0)))


@torch.no_grad()
def _torch_features(encoder: nn.Module, pixels: np.ndarray) -> np.ndarray:
    """Returns PyTorch's features, computed a few images at a time to limit memory."""
    parts = [encoder(torch.from_numpy(pixels[i : i + 8])) for i in range(0, len(pixels), 8)]
    features: np.ndarray = torch.cat(parts).numpy()
    return features
