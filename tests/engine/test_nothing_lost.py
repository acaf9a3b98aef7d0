"""What speed may not cost: every answer is that of a lone image, a lone thread and a plain search over the plain graph.

Written from the laws alone: nothing here knows how the engine batches, binds, fuses or compacts.
"""

import functools
import itertools
import threading
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
from tests.engine.captions import assert_same
from tests.engine.decoding.test_naive_beam import naive_beam

THREADS = 16
CONSTRAINTS: tuple[dict[str, Any], ...] = (
    {},
    {"min_length": 7},
    {"max_length": 3},
    {"prefix": "there is", "suppress": ("red", "circle")},
    {"no_repeat_ngram_size": 1, "min_length": 5, "max_length": 9},
    {"no_repeat_ngram_size": 3, "bad_endings": ("paper", "the", "a"), "max_length": 7},
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
def images(images: list[Path]) -> list[np.ndarray]:
    """Drawings which nobody may write to."""
    opened = [np.asarray(Image.open(path)) for path in images]
    for drawing in opened:
        drawing.flags.writeable = False
    return opened


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


@settings(at_leisure, max_examples=80)
@given(batch=st.lists(st.integers(0, 11), min_size=1, max_size=20), way=st.sampled_from(WAYS))
def test_what_an_image_is_called_does_not_depend_on_its_neighbours(
    captioner: Captioner,
    features: np.ndarray,
    alone: Callable[[int, Decoding], Caption],
    batch: list[int],
    way: Decoding,
) -> None:
    assert_same(captioner.caption_features(features[batch], way), [alone(i, way) for i in batch])


@settings(at_leisure, max_examples=10)
@given(batch=st.lists(st.integers(0, 11), min_size=1, max_size=20), way=st.sampled_from(WAYS))
def test_nor_does_it_from_pixels_on(
    captioner: Captioner,
    images: list[np.ndarray],
    alone: Callable[[int, Decoding], Caption],
    batch: list[int],
    way: Decoding,
) -> None:
    assert_same(captioner.caption([images[i] for i in batch], way), [alone(i, way) for i in batch])


# --- the plain search over the plain graph


class Plain:
    """The portable single step of a bundle, one sentence at a time."""

    def __init__(self, bundle: Path, vocabulary: Vocabulary, features: np.ndarray) -> None:
        self._init, self._step = (
            ort.InferenceSession(bundle / f"{name}.onnx", providers=["CPUExecutionProvider"])
            for name in ("decoder_init", "decoder_step")
        )
        self._never = [vocabulary.pad_id, vocabulary.unk_id, vocabulary.start_id]
        self._start_id, self._features = vocabulary.start_id, features
        self._known: dict[tuple[int, ...], tuple[np.ndarray, list[np.ndarray]]] = {}

    def step(self, image: int, words: tuple[int, ...]) -> tuple[np.ndarray, list[np.ndarray]]:
        """Returns the distribution and the state after it."""
        if (image, *words) not in self._known:
            state = self.step(image, words[:-1])[1] if words else self._start(image)
            token = np.array([words[-1] if words else self._start_id])
            fed = {"token_ids": token, "hidden": state[0], "cell": state[1]}
            log_probs, *after = self._step.run(["log_probs", "next_hidden", "next_cell"], fed)
            allowed = log_probs[0].astype(np.float64)
            allowed[self._never] = -np.inf
            self._known[image, *words] = allowed, after
        return self._known[image, *words]

    def distribution(self, image: int, words: tuple[int, ...]) -> np.ndarray:
        """Returns the log-probability of each next word, float64 (vocabulary,)."""
        return self.step(image, words)[0]

    def _start(self, image: int) -> list[np.ndarray]:
        state: list[np.ndarray] = self._init.run(["hidden", "cell"], {"features": self._features[image : image + 1]})
        return state


@pytest.fixture(scope="module")
def plain(tiny_bundle: Path, captioner: Captioner, features: np.ndarray) -> Plain:
    return Plain(tiny_bundle, captioner.bundle.vocabulary, features)


@pytest.mark.parametrize("size", range(1, 7))
@pytest.mark.parametrize("penalty", [0.0, 0.7])
def test_beams_are_those_of_the_plain_search(
    captioner: Captioner, features: np.ndarray, plain: Plain, size: int, penalty: float
) -> None:
    words, end = captioner.bundle.vocabulary.words, captioner.bundle.vocabulary.end_id
    way = Beam(beam_size=size, num_hypotheses=size, length_penalty=penalty, max_length=12)
    ways: list[Decoding] = [way, *([Greedy(max_length=12)] if size == 1 and not penalty else [])]
    searched = [
        naive_beam(functools.partial(plain.distribution, i), end, 12, size, penalty) for i in range(len(features))
    ]
    expected = [sentences[:size] for sentences in searched]
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
    log_probs = plain.distribution(0, ())
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
            for i in generator.permutation(len(WAYS))[:2]
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


def test_a_broken_image_in_any_position_is_named_and_costs_no_other(captioner: Captioner, drawn_data: Path) -> None:
    files = sorted((drawn_data / "images").iterdir())[-9:]  # of which a batch takes seven
    kinds: list[Any] = [b"", files[0].read_bytes()[:300], "no such file.jpg", None, np.zeros((4, 4), np.float32)]
    way = Beam(beam_size=3, num_hypotheses=2)
    whole = captioner.caption(files, way)
    for position in range(len(files) + 1):
        batch = [*files[:position], kinds[position % len(kinds)], *files[position:]]
        for call in (captioner.caption, captioner.encode, lambda given: captioner.score(given, ["a"] * len(given))):
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
