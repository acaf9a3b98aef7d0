"""The pieces of work that are timed: each once by the engine and once by PyTorch, with the proof that both give
the same. Times nothing itself.
"""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch

from benchmarks.baseline import Baseline, Choose, Sentence, draw, likeliest
from benchmarks.photographs import photographs
from engine import Beam, Caption, Captioner, Greedy, RuntimeOptions, Sample
from engine.vocabulary import Vocabulary

BATCHES = (1, 8, 32)
TOLERANCE = 1e-3
SEEDS = range(3)


@dataclass(frozen=True, slots=True)
class Pair:
    """One piece of work, done by either side. check raises AssertionError unless both give the same."""

    engine: Callable[[], object]
    pytorch: Callable[[], object]
    check: Callable[[], None]


class Sides:
    """Both sides, ready, with what they work on: JPEG files, their pixels and their features."""

    def __init__(self, bundle: Path | None = None, threads: int = 0) -> None:
        """Takes the bundle that ships where none is named; 0 threads are as many as each library takes by itself."""
        # Image decoding, encoder and step are timed alone, and the public methods offer them only in company: these
        # pairs use the Captioner's _load and _graphs, so that what is timed is what its users run, not a copy.
        runtime = RuntimeOptions(threads=threads)
        self.captioner = Captioner(bundle, provider="cpu", batch_size=max(BATCHES), runtime=runtime)
        if threads:
            torch.set_num_threads(threads)
        self.baseline = Baseline(self.captioner.bundle)
        self.files = photographs(max(BATCHES))
        self.pixels = self.baseline.pixels(self.files)
        self.features = self.captioner.encode(self.files)

    def pair(self, work: str, batch: int) -> Pair:
        """Returns a piece of WORKS for the first `batch` images, checked."""
        pair = WORKS[work](self, batch)
        pair.check()
        return pair


def decode_images(sides: Sides, batch: int) -> Pair:
    """JPEG bytes to pixels: a pool of threads on either side."""
    files = sides.files[:batch]

    def engine() -> np.ndarray:
        loaded = itertools.chain.from_iterable(sides.captioner._load(files, fail=True))
        return np.stack([image for image in loaded if isinstance(image, np.ndarray)])

    pytorch = partial(sides.baseline.pixels, files)
    return Pair(engine, pytorch, lambda: np.testing.assert_array_equal(engine(), pytorch()))


def encode(sides: Sides, batch: int) -> Pair:
    """Pixels to features."""
    pixels = sides.pixels[:batch]
    engine, pytorch = partial(sides.captioner._graphs.encode, pixels), partial(sides.baseline.encode, pixels)
    return Pair(engine, pytorch, lambda: _close(engine(), pytorch().numpy()))


def step(sides: Sides, batch: int) -> Pair:
    """One word for each row, and the likeliest word after it. Each call continues the state of the one before."""
    vocabulary = sides.baseline.vocabulary
    given, rows = np.full(batch, vocabulary.start_id), np.arange(batch)
    bias = np.zeros((1, len(vocabulary)), np.float32)
    bias[:, sides.baseline.never] = -np.inf
    steps = sides.captioner._graphs.start(sides.features[:batch])
    state = sides.baseline.start(torch.from_numpy(sides.features[:batch]))

    def engine() -> tuple[np.ndarray, np.ndarray]:
        return steps.step(given, rows, bias, 1)

    def pytorch() -> tuple[torch.Tensor, torch.Tensor]:
        nonlocal state
        log_probs, *following = sides.baseline.step(torch.from_numpy(given), *state)
        state = following[0], following[1]
        best = log_probs.max(dim=1)
        return best.indices, best.values

    def check() -> None:
        (ids, log_probs), (expected_ids, expected_log_probs) = engine(), pytorch()
        np.testing.assert_array_equal(ids[:, 0], expected_ids.numpy())
        _close(log_probs[:, 0], expected_log_probs.numpy())

    return Pair(engine, pytorch, check)


def greedy(sides: Sides, batch: int) -> Pair:
    """Features to sentences, the likeliest word at each step."""
    features = sides.features[:batch]
    engine = partial(sides.captioner.caption_features, features, Greedy())
    pytorch = partial(sides.baseline.decode, torch.from_numpy(features), likeliest)
    return Pair(engine, pytorch, lambda: _same(engine(), pytorch()))


def beam(sides: Sides, batch: int, *, beam_size: int) -> Pair:
    """Features to sentences by beam search."""
    features = sides.features[:batch]
    engine = partial(sides.captioner.caption_features, features, Beam(beam_size=beam_size))
    pytorch = partial(sides.baseline.beam, torch.from_numpy(features), beam_size)
    return Pair(engine, pytorch, lambda: _same(engine(), pytorch()))


def sample(sides: Sides, batch: int) -> Pair:
    """Features to sentences drawn from the whole distribution, anew in each call.

    What is timed draws as each side does by itself, the proof checks what the engine draws with known numbers.
    """
    features = sides.features[:batch]
    given = torch.from_numpy(features)

    def check() -> None:
        for seed in SEEDS:
            captions = sides.captioner.caption_features(features, Sample(seed=seed))
            uniforms = np.random.default_rng(seed).random(sides.baseline.max_length)  # as Sample(seed=...) draws them
            _same(captions, sides.baseline.decode(given, _follow(captions, uniforms, sides.baseline.vocabulary)))

    engine = partial(sides.captioner.caption_features, features, Sample())
    return Pair(engine, partial(sides.baseline.decode, given, draw), check)


def end_to_end(sides: Sides, batch: int) -> Pair:
    """JPEG bytes to sentences, greedy."""
    files, baseline = sides.files[:batch], sides.baseline
    engine = partial(sides.captioner.caption, files, Greedy())

    def pytorch() -> list[Sentence]:
        return baseline.decode(baseline.encode(baseline.pixels(files)), likeliest)

    return Pair(engine, pytorch, lambda: _same(engine(), pytorch()))


WORKS: dict[str, Callable[[Sides, int], Pair]] = {
    "image decoding": decode_images,
    "encoder": encode,
    "decoder step": step,
    "greedy": greedy,
    "beam 3": partial(beam, beam_size=3),
    "beam 5": partial(beam, beam_size=5),
    "sample": sample,
    "end to end": end_to_end,
}


def _follow(captions: Sequence[Caption], uniforms: np.ndarray, vocabulary: Vocabulary) -> Choose:
    """Goes along the captions' tokens, and requires of each that its random number draws it in PyTorch, too.

    Drawn is the word, likeliest first, in whose part of the cumulative distribution the number falls. Words whose
    likelihoods differ by less than the share TOLERANCE may stand in any order: rounding decides it.
    """
    live = [[vocabulary.ids[word] for word in caption.tokens] for caption in captions]

    def choose(position: int, log_probs: torch.Tensor) -> torch.Tensor:
        nonlocal live
        tokens = torch.tensor([[ids[position]] for ids in live])  # (rows, 1)
        p = log_probs.double().softmax(dim=1)  # (rows, vocabulary)
        drawn = p.gather(1, tokens)  # (rows, 1)
        begin = (p * (p > drawn * (1 + TOLERANCE))).sum(dim=1)
        end = (p * (p >= drawn * (1 - TOLERANCE))).sum(dim=1)
        if not ((begin - TOLERANCE <= uniforms[position]) & (uniforms[position] <= end + TOLERANCE)).all():
            raise AssertionError(f"at position {position}, PyTorch draws other words with the same numbers")
        live = [ids for ids in live if ids[position] != vocabulary.end_id]
        return tokens[:, 0]

    return choose


def _same(captions: Sequence[Caption], sentences: Sequence[Sentence]) -> None:
    np.testing.assert_array_equal([caption.text for caption in captions], [sentence.text for sentence in sentences])
    _close([caption.score for caption in captions], [sentence.score for sentence in sentences])


def _close(found: np.ndarray | list[float], expected: np.ndarray | list[float]) -> None:
    np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE)
