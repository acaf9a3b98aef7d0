"""Decoders that are no LSTM of one vector: any state, context shared by an image's sentences, and attention."""

import functools
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmarks.photographs import photographs
from engine import Beam, Caption, Captioner, Greedy, OptionsError, Sample, Scheduler
from engine.options import Decoding
from tests.decoders import AttentionDecoder, CountingDecoder, seeded

IMAGES = 6
WAYS: tuple[Decoding, ...] = (
    Greedy(),
    Greedy(max_length=4),
    Beam(),
    Beam(beam_size=5, num_hypotheses=4, length_penalty=1.0),
    Sample(seed=1, temperature=2.0, num_samples=3),
    Sample(seed=4, temperature=2.0, top_k=5, num_samples=2),
)


@pytest.fixture(scope="module", params=["attention", "counting"])
def captioner(request: pytest.FixtureRequest) -> Captioner:
    return Captioner(request.getfixturevalue(f"{request.param}_bundle"), provider="cpu", precision="fp32", batch_size=8)


@pytest.fixture(scope="module")
def features(captioner: Captioner) -> np.ndarray:
    return captioner.encode(photographs(IMAGES))


@pytest.fixture(scope="module")
def alone(captioner: Captioner, features: np.ndarray) -> Callable[[int, Decoding], Caption]:
    """What is said of an image when no other is there."""
    return functools.cache(lambda image, way: captioner.caption_features(features[image : image + 1], way)[0])


def same(one: Caption, other: Caption) -> bool:
    """Says whether two captions are the same sentences, their scores equal but for the order of sums."""
    mine, its = one.alternatives, other.alternatives
    return [each.text for each in mine] == [each.text for each in its] and np.allclose(
        [each.score for each in mine], [each.score for each in its], atol=1e-4
    )


@pytest.mark.parametrize("way", WAYS, ids=repr)
def test_images_of_a_batch_do_not_touch_each_other(
    captioner: Captioner, features: np.ndarray, alone: Callable[[int, Decoding], Caption], way: Decoding
) -> None:
    captions = captioner.caption_features(features, way)
    if not isinstance(way, Sample):  # which draws with the same numbers for all images
        assert len({caption.text for caption in captions}) > 1, "the test needs sentences that differ"
    for image, caption in enumerate(captions):
        assert same(caption, alone(image, way))


@settings(deadline=None, derandomize=True, max_examples=15, suppress_health_check=[HealthCheck.too_slow])
@given(
    arrivals=st.lists(st.tuples(st.integers(0, IMAGES - 1), st.sampled_from(WAYS)), min_size=1, max_size=12),
    cancelled=st.sets(st.integers(0, 11), max_size=4),
)
def test_a_request_is_answered_the_same_whoever_joins_and_leaves(
    captioner: Captioner,
    alone: Callable[[int, Decoding], Caption],
    arrivals: list[tuple[int, Decoding]],
    cancelled: set[int],
) -> None:
    files = photographs(IMAGES)
    with Scheduler(captioner, max_rows=16) as scheduler:
        futures = [scheduler.submit(files[image], way) for image, way in arrivals]
        for place in cancelled & set(range(len(futures))):
            futures[place].cancel()
        for place, ((image, way), future) in enumerate(zip(arrivals, futures, strict=True)):
            if place not in cancelled:
                assert same(future.result(60), alone(image, way))


@pytest.mark.parametrize("kind", [AttentionDecoder, CountingDecoder])
@torch.no_grad()
def test_greedy_is_pytorch_step_by_step(request: pytest.FixtureRequest, kind: type[AttentionDecoder]) -> None:
    name = "attention" if kind is AttentionDecoder else "counting"
    captioner = Captioner(request.getfixturevalue(f"{name}_bundle"), provider="cpu", precision="fp32")
    decoder, vocabulary = seeded(kind), captioner.bundle.vocabulary
    features = captioner.encode(photographs(IMAGES))
    plain = Greedy(no_repeat_ngram_size=0, bad_endings=())
    for row, caption in zip(features, captioner.caption_features(features, plain), strict=True):
        state, context = decoder.start(torch.from_numpy(row[None]))  # type: ignore[operator]
        token, said = vocabulary.start_id, list[int]()
        while token != vocabulary.end_id and len(said) < 12:
            logits, state = decoder.step(torch.tensor([token]), state, context)  # type: ignore[operator]
            logits[:, list(vocabulary.never)] = -torch.inf
            token = int(logits.argmax())
            said.append(token)
        assert [vocabulary.ids[word] for word in caption.tokens] == said


# --- where it looked


@torch.no_grad()
def test_attention_is_pytorchs_for_each_word(attention_bundle: Path) -> None:
    captioner = Captioner(attention_bundle, provider="cpu", precision="fp32", batch_size=4)
    decoder, vocabulary = seeded(AttentionDecoder), captioner.bundle.vocabulary
    files = photographs(IMAGES)
    captions = captioner.caption(files, Beam(), attention=True)
    assert [caption.text for caption in captions] == [caption.text for caption in captioner.caption(files, Beam())]
    for row, caption in zip(captioner.encode(files), captions, strict=True):
        words = caption.text.split()
        assert caption.attention is not None
        assert caption.attention.shape == (len(words), 3, 4)
        assert caption.attention.dtype == np.float32
        np.testing.assert_allclose(caption.attention.sum(axis=(1, 2)), 1, atol=1e-5)
        state, context = decoder.start(torch.from_numpy(row[None]))  # type: ignore[operator]
        token = vocabulary.start_id
        for word, looked in zip(words, caption.attention, strict=True):
            _, state, expected = decoder.step_with_attention(  # type: ignore[operator]
                torch.tensor([token]), state, context
            )
            np.testing.assert_allclose(looked, expected[0].numpy(), atol=1e-5)
            token = vocabulary.ids[word]


def test_the_scheduler_gives_attention_to_who_asks(attention_bundle: Path) -> None:
    captioner = Captioner(attention_bundle, provider="cpu", precision="fp32", batch_size=4)
    files = photographs(IMAGES)
    expected = captioner.caption(files, Beam(), attention=True)
    with Scheduler(captioner) as scheduler:
        asked = [scheduler.submit(file, Beam(), attention=True) for file in files]
        others = [scheduler.submit(file, Beam()) for file in files]
        for future, other, caption in zip(asked, others, expected, strict=True):
            found = future.result(60).attention
            assert found is not None
            assert caption.attention is not None
            np.testing.assert_allclose(found, caption.attention, atol=1e-4)
            assert other.result(60).attention is None


def test_a_scheduler_of_a_model_without_attention_refuses_at_once(counting_bundle: Path) -> None:
    captioner = Captioner(counting_bundle, provider="cpu", precision="fp32")
    with Scheduler(captioner) as scheduler, pytest.raises(OptionsError, match="has no attention"):
        scheduler.submit(photographs(1)[0], attention=True)


def test_without_being_asked_there_is_no_attention(attention_bundle: Path) -> None:
    caption = Captioner(attention_bundle, provider="cpu", precision="int8").caption(photographs(1))[0]
    assert caption.attention is None


def test_a_model_without_attention_says_so_at_once(counting_bundle: Path) -> None:
    captioner = Captioner(counting_bundle, provider="cpu", precision="fp32")
    with pytest.raises(OptionsError, match="has no attention"):
        captioner.iter_captions(iter(()), attention=True)


# --- words of its own


def test_prefix_and_suppressed_words_follow_the_bundles_own_splitting(attention_bundle: Path) -> None:
    captioner = Captioner(attention_bundle, provider="cpu", precision="fp32")
    caption = captioner.caption(photographs(1), Greedy(prefix="A word7", suppress=("word33",)))[0]
    assert caption.text.startswith("a word7 ")
    assert "word33" not in caption.text
    assert caption.tokens[-1] in {"<end>", *captioner.bundle.vocabulary.words}
    with pytest.raises(OptionsError, match=r"\['a,b'\]"):  # one word by this bundle's rule, \S+
        captioner.caption(photographs(1), Greedy(prefix="a,b"))


def test_scores_of_words_that_no_word_stands_for_are_refused(attention_bundle: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(attention_bundle, tmp_path / "bundle"))
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["words"]["unk"] = "<end>"
    (folder / "manifest.json").write_text(json.dumps(manifest))
    captioner = Captioner(folder, provider="cpu", precision="fp32")
    assert np.isfinite(captioner.score(photographs(1), ["a man"])).all()
    with pytest.raises(OptionsError, match=r"does not know \['zebra'\] and has no word for unknown words"):
        captioner.score(photographs(1), ["a zebra"])
