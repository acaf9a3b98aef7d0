"""What speed may not cost: every answer is that of a lone image, a lone thread and a plain search over the plain graph.

Written from the laws alone: nothing here knows how the engine batches, binds, fuses or compacts.
"""

import functools
import gc
import itertools
import os
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from engine import Beam, Caption, Captioner, EngineError, Greedy, ImageError, OptionsError, Sample
from engine.bundle.vocabulary import Vocabulary
from engine.options import Decoding

ROOT = Path(__file__).parents[2]
THREADS = 16
CONSTRAINTS: tuple[dict[str, Any], ...] = (
    {},
    {"min_length": 7},
    {"max_length": 3},
    {"prefix": "there is", "suppress": ("red", "circle")},
    {"no_repeat_ngram_size": 1, "min_length": 5, "max_length": 9},
)
WAYS: tuple[Decoding, ...] = (
    *(Greedy(**told) for told in CONSTRAINTS),
    *(Beam(beam_size=size) for size in range(1, 7)),
    *(Beam(beam_size=size, num_hypotheses=size, length_penalty=1.0) for size in (2, 4, 6)),
    *(Beam(beam_size=4, num_hypotheses=2, **told) for told in CONSTRAINTS[1:]),
    *(Sample(seed=seed, temperature=2.0) for seed in (1, 2)),
    *(Sample(seed=3, temperature=3.0, num_samples=number) for number in (2, 5)),
    Sample(seed=5, temperature=5.0, top_k=9, top_p=0.95, num_samples=4),
    *(Sample(seed=4, temperature=2.0, top_k=4, top_p=0.9, num_samples=3, **told) for told in CONSTRAINTS),
)
at_leisure = settings(deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])


@pytest.fixture(scope="module")
def images(drawn_data: Path) -> list[np.ndarray]:
    """Twelve drawings that the model was not trained on, which nobody may write to."""
    drawings = [np.asarray(Image.open(path)) for path in sorted((drawn_data / "images").iterdir())[-12:]]
    for drawing in drawings:
        drawing.flags.writeable = False
    return drawings


@pytest.fixture(scope="module")
def captioner(tiny_bundle: Path) -> Captioner:
    """Takes batches apart often."""
    return Captioner(tiny_bundle, provider="cpu", batch_size=7)


@pytest.fixture(scope="module")
def features(captioner: Captioner, images: list[np.ndarray]) -> np.ndarray:
    """Each drawing encoded by itself."""
    encoded = np.concatenate([captioner.encode([image]) for image in images])
    encoded.flags.writeable = False
    return encoded


@pytest.fixture(scope="module")
def alone(captioner: Captioner, features: np.ndarray) -> Callable[[int, Decoding], Caption]:
    """What an image is captioned as when no other is there."""

    @functools.cache
    def caption(image: int, way: Decoding) -> Caption:
        return captioner.caption_features(features[image : image + 1], way)[0]

    return caption


def assert_same(found: list[Caption], expected: list[Caption]) -> None:
    """The same sentences in the same order; numbers may differ by rounding, as sums of other shapes do."""
    for one, other in zip(found, expected, strict=True):
        assert [a.tokens for a in one.alternatives] == [a.tokens for a in other.alternatives]
        for mine, theirs in zip(one.alternatives, other.alternatives, strict=True):
            assert (mine.text, mine.finished) == (theirs.text, theirs.finished)
            assert mine.score == pytest.approx(theirs.score, abs=1e-4)
            assert mine.token_log_probs == pytest.approx(theirs.token_log_probs, abs=1e-4)


# --- an image and its neighbours


def test_the_drawings_tell_differences_apart(alone: Callable[[int, Decoding], Caption]) -> None:
    """Else the laws below would hold for a model that always says the same."""
    for way in WAYS:
        captions = [alone(i, way) for i in range(12)]
        few = way.max_length == 3  # most are then "there is a", or nothing, which at least ends
        assert len({caption.text for caption in captions}) > (1 if few else 2)
    for temperature in (2.0, 3.0, 4.0):
        way = Sample(seed=11, temperature=temperature, num_samples=6)
        drawn = [len(one.tokens) for i in range(12) for one in alone(i, way).alternatives]
        assert max(drawn) > min(drawn) + 5  # some end long before others


@settings(at_leisure, max_examples=120)
@given(batch=st.lists(st.integers(0, 11), min_size=1, max_size=20), way=st.sampled_from(WAYS))
def test_what_an_image_is_called_does_not_depend_on_its_neighbours(
    captioner: Captioner,
    features: np.ndarray,
    alone: Callable[[int, Decoding], Caption],
    batch: list[int],
    way: Decoding,
) -> None:
    assert_same(captioner.caption_features(features[batch], way), [alone(i, way) for i in batch])


@settings(at_leisure, max_examples=25)
@given(batch=st.lists(st.integers(0, 11), min_size=1, max_size=20), way=st.sampled_from(WAYS))
def test_nor_does_it_from_pixels_on(
    captioner: Captioner,
    images: list[np.ndarray],
    alone: Callable[[int, Decoding], Caption],
    batch: list[int],
    way: Decoding,
) -> None:
    assert_same(captioner.caption([images[i] for i in batch], way), [alone(i, way) for i in batch])


@pytest.mark.parametrize("size", [1, 2, 3, 8, 31, 64, 200])
def test_nor_on_how_many_run_at_once(
    tiny_bundle: Path, features: np.ndarray, alone: Callable[[int, Decoding], Caption], size: int
) -> None:
    captioner = Captioner(tiny_bundle, provider="cpu", batch_size=size)
    batch = np.random.default_rng(size).integers(0, 12, 2 * size + 1).tolist()
    for way in (WAYS[0], Beam(beam_size=5, num_hypotheses=5), Sample(seed=3, temperature=3.0, num_samples=5)):
        assert_same(captioner.caption_features(features[batch], way), [alone(i, way) for i in batch])


@settings(at_leisure, max_examples=40)
@given(
    order=st.permutations(range(12)),
    temperature=st.sampled_from([0.5, 2.0, 4.0]),
    number=st.integers(1, 6),
    top_k=st.sampled_from([0, 8]),
)
def test_a_seed_draws_the_same_wherever_an_image_stands_and_whoever_ends_early(
    captioner: Captioner,
    features: np.ndarray,
    alone: Callable[[int, Decoding], Caption],
    order: list[int],
    temperature: float,
    number: int,
    top_k: int,
) -> None:
    way = Sample(seed=11, temperature=temperature, num_samples=number, top_k=top_k)
    assert_same(captioner.caption_features(features[order], way), [alone(i, way) for i in order])


# --- the plain search over the plain graph


class Plain:
    """The portable single step of a bundle, one sentence at a time."""

    def __init__(self, bundle: Path, vocabulary: Vocabulary) -> None:
        self._init, self._step = (
            ort.InferenceSession(bundle / f"{name}.onnx", providers=["CPUExecutionProvider"])
            for name in ("decoder_init", "decoder_step")
        )
        self.never = [vocabulary.pad_id, vocabulary.unk_id, vocabulary.start_id]
        self.start_id, self.end_id = vocabulary.start_id, vocabulary.end_id

    def start(self, feature: np.ndarray) -> Any:
        """Returns hidden and cell."""
        return self._init.run(["hidden", "cell"], {"features": feature[None]})

    def step(self, token: int, state: Any) -> tuple[np.ndarray, Any]:
        """Returns the log-probability of each next word, float64 (vocabulary,), and the next state."""
        given = {"token_ids": np.array([token]), "hidden": state[0], "cell": state[1]}
        log_probs, *state = self._step.run(["log_probs", "next_hidden", "next_cell"], given)
        allowed = log_probs[0].astype(np.float64)
        allowed[self.never] = -np.inf
        return allowed, state

    def beam(self, feature: np.ndarray, size: int, max_length: int, penalty: float) -> list[tuple[list[int], float]]:
        """Returns (tokens, score) of each sentence found, best first: beam search in words, without a shortcut."""
        live: list[tuple[list[int], float, Any]] = [([], 0.0, self.start(feature))]
        ended: list[tuple[list[int], float]] = []
        for _ in range(max_length):
            grown = []
            for tokens, total, state in live:
                log_probs, after = self.step(tokens[-1] if tokens else self.start_id, state)
                grown += [([*tokens, i], total + p, after) for i, p in enumerate(log_probs.tolist()) if p > -np.inf]
            ranked = sorted(grown, key=lambda sentence: -sentence[1])[: 2 * size]
            ended += [(tokens, total) for tokens, total, _ in ranked[:size] if tokens[-1] == self.end_id]
            live = [sentence for sentence in ranked if sentence[0][-1] != self.end_id][:size]
            if len(ended) >= size:
                live = []
                break
        parts = (ended, [(tokens, total) for tokens, total, _ in live])  # the finished stand before the unfinished
        scored = [[(tokens, total / len(tokens) ** penalty) for tokens, total in part] for part in parts]
        return [one for part in scored for one in sorted(part, key=lambda sentence: -sentence[1])]


@pytest.fixture(scope="module")
def plain(tiny_bundle: Path, captioner: Captioner) -> Plain:
    return Plain(tiny_bundle, captioner.bundle.vocabulary)


@pytest.mark.parametrize("size", range(1, 7))
@pytest.mark.parametrize("penalty", [0.0, 0.7])
def test_beams_are_those_of_the_plain_search(
    captioner: Captioner, features: np.ndarray, plain: Plain, size: int, penalty: float
) -> None:
    words = captioner.bundle.vocabulary.words
    way = Beam(beam_size=size, num_hypotheses=size, length_penalty=penalty, max_length=12)
    ways: list[Decoding] = [way, *([Greedy(max_length=12)] if size == 1 and not penalty else [])]
    expected = [plain.beam(feature, size, 12, penalty)[:size] for feature in features]
    for way_ in ways:
        for caption, sentences in zip(captioner.caption_features(features, way_), expected, strict=True):
            for one, (tokens, score) in zip(caption.alternatives, sentences, strict=True):
                assert one.tokens == tuple(words[i] for i in tokens)
                if isinstance(way_, Beam):
                    assert one.score == pytest.approx(score, abs=1e-4)
                assert one.log_prob == pytest.approx(score * len(tokens) ** penalty, abs=1e-4)


@pytest.mark.parametrize("cut", [{}, {"top_k": 5}, {"top_p": 0.8}, {"top_k": 6, "top_p": 0.9}], ids=str)
def test_words_are_drawn_as_often_as_the_plain_step_finds_them_likely(
    captioner: Captioner, features: np.ndarray, plain: Plain, cut: dict[str, Any]
) -> None:
    draws, temperature = 6000, 2.5
    log_probs, _ = plain.step(plain.start_id, plain.start(features[0]))
    p = np.exp(log_probs / temperature)
    order = np.argsort(-p)
    p[order[cut.get("top_k", len(p)) :]] = 0
    p /= p.sum()
    before = p[order].cumsum() - p[order]  # of the likelier ones: the word that passes top_p still takes part
    p[order[before >= cut.get("top_p", 1.0)]] = 0
    p /= p.sum()
    captions = captioner.caption_features(
        np.repeat(features[:1], draws, axis=0), Sample(temperature=temperature, max_length=1, **cut)
    )
    ids = captioner.bundle.vocabulary.ids
    drawn = np.bincount([ids[caption.tokens[0]] for caption in captions], minlength=len(p))
    spread = np.sqrt(draws * p * (1 - p))
    assert (np.abs(drawn - draws * p) <= 6 * spread + 3 * (p > 0)).all()
    for caption in captions[:20]:  # what is reported is the model's probability, not the one drawn from
        assert caption.log_prob == pytest.approx(log_probs[ids[caption.tokens[0]]], abs=1e-4)


# --- threads and calls that overlap


def test_sixteen_threads_get_exactly_what_a_lone_call_gives(tiny_bundle: Path, images: list[np.ndarray]) -> None:
    lone, shared = (Captioner(tiny_bundle, provider="cpu", batch_size=5) for _ in range(2))
    generator = np.random.default_rng(0)
    work = [
        [
            (generator.integers(0, 12, generator.integers(1, 14)).tolist(), WAYS[i])
            for i in generator.permutation(len(WAYS))[:4]
        ]
        for _ in range(THREADS)
    ]
    given = ["there is a red circle", "a zebra", "", "green square on the paper"]

    def run(captioner: Captioner, calls: list[tuple[list[int], Decoding]]) -> Iterator[object]:
        for batch, way in calls:
            chosen = [images[i] for i in batch]
            yield captioner.caption(chosen, way)
            yield list(captioner.iter_captions(iter(chosen), way))
            yield captioner.encode(chosen).tobytes()
            yield captioner.score(chosen[:4], given[: len(chosen)]).tobytes()

    expected = [list(run(lone, calls)) for calls in work]
    together = threading.Barrier(THREADS)

    def caption(calls: list[tuple[list[int], Decoding]]) -> list[object]:
        together.wait()  # the first calls that the shared captioner ever gets come all at once
        return list(run(shared, calls))

    with ThreadPoolExecutor(THREADS) as pool:
        for i, found in enumerate(pool.map(caption, work)):
            assert found == expected[i]


def test_calls_that_are_half_done_do_not_disturb_one_another(captioner: Captioner, images: list[np.ndarray]) -> None:
    ways: list[Decoding] = [Greedy(), Beam(beam_size=4), Sample(seed=3, temperature=2.0), Greedy(min_length=7)]
    expected = [captioner.caption(images, way) for way in ways]
    opened = [captioner.iter_captions(images, way) for way in ways]
    for captions in itertools.zip_longest(*opened):
        captioner.caption(images[:3], Beam(beam_size=6))
        for i, caption in enumerate(captions):
            assert caption == expected[i].pop(0)


def test_what_was_returned_stays_and_what_was_given_is_not_written_to(
    captioner: Captioner, images: list[np.ndarray]
) -> None:
    encoded, scores = captioner.encode(images[:7]), captioner.score(images[:7], ["a red circle"] * 7)
    kept = encoded.copy(), scores.copy()
    for way in WAYS:
        captioner.caption(images[5:12], way)
        captioner.caption_features(encoded, way)
    captioner.score(images[5:12], ["there is"] * 7)
    np.testing.assert_array_equal(encoded, kept[0])
    np.testing.assert_array_equal(scores, kept[1])


# --- errors


@pytest.mark.parametrize("kind", ["empty", "cut", "missing", "nothing", "floats"])
def test_a_broken_image_in_any_position_is_named_and_costs_no_other(
    captioner: Captioner, drawn_data: Path, images: list[np.ndarray], kind: str
) -> None:
    files = sorted((drawn_data / "images").iterdir())[-9:]  # of which a batch takes seven
    broken: Any = {
        "empty": b"",
        "cut": files[0].read_bytes()[:300],
        "missing": "no such file.jpg",
        "nothing": None,
        "floats": np.zeros((4, 4), np.float32),
    }[kind]
    way = Beam(beam_size=3, num_hypotheses=2)
    whole = captioner.caption(files, way)
    for position in range(len(files) + 1):
        batch = [*files[:position], broken, *files[position:]]
        for call in (captioner.caption, captioner.encode):
            with pytest.raises(ImageError, match=f"^entry {position}"):
                call(batch)
        results = captioner.caption(batch, way, on_error="return")
        error = results.pop(position)
        assert isinstance(error, ImageError)
        assert error.entry == position
        assert_same([caption for caption in results if isinstance(caption, Caption)], whole)


def test_after_an_error_the_next_call_is_as_if_nothing_had_been(captioner: Captioner, features: np.ndarray) -> None:
    before = captioner.caption_features(features, Beam(beam_size=4))
    spoilt = features.copy()
    spoilt[5, 3] = np.nan
    for way in WAYS:
        with pytest.raises(EngineError, match="NaN"):
            captioner.caption_features(spoilt, way)
    with pytest.raises(OptionsError):
        captioner.caption_features(features, Greedy(max_length=1, prefix="there is a red"))
    assert captioner.caption_features(features, Beam(beam_size=4)) == before


# --- memory


def test_a_captioner_that_is_dropped_takes_its_threads_with_it(tiny_bundle: Path, images: list[np.ndarray]) -> None:
    before = {thread.ident for thread in threading.enumerate()}
    captioner = Captioner(tiny_bundle, provider="cpu")
    captions = captioner.iter_captions(images * 6)
    next(captions)  # dropped at work
    dropped = weakref.ref(captioner)
    del captioner, captions
    left = [thread for thread in threading.enumerate() if thread.ident not in before]
    until = time.monotonic() + 10  # what is at work may finish
    while (dropped() is not None or any(thread.is_alive() for thread in left)) and time.monotonic() < until:
        gc.collect()
        time.sleep(0.01)
    assert dropped() is None
    assert not any(thread.is_alive() for thread in left)


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="memory is read from /proc")
def test_memory_stays_flat_over_batches_of_random_sizes(tiny_bundle: Path) -> None:
    command = [sys.executable, "-m", "tests.engine.random_batches", str(tiny_bundle)]
    kept = {"MALLOC_ARENA_MAX": "1"}  # else threads that collide get a heap each, at no known time
    done = subprocess.run(command, cwd=ROOT, env=os.environ | kept, capture_output=True, text=True, check=True)
    peaks, threads = zip(*(map(int, line.split()) for line in done.stdout.splitlines()), strict=True)
    warm = len(peaks) // 4
    assert peaks[-1] < 1.05 * peaks[warm - 1], done.stdout
    assert threads[-1] <= threads[warm - 1], done.stdout
