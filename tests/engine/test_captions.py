"""What a caption says: its numbers agree, it obeys its constraints, and it scores as if it were given."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine import Beam, Captioner, Greedy, Sample
from engine.bundle.vocabulary import SPECIAL_WORDS
from engine.options import Decoding
from export.additions import amend
from tests.engine.captions import assert_same, texts

WAYS: tuple[Decoding, ...] = (
    Greedy(),
    Beam(beam_size=4),
    Sample(seed=3, temperature=2.0),
    Beam(beam_size=5, num_hypotheses=5),
    Beam(num_hypotheses=4, length_penalty=1.0),
    Beam(beam_size=6, num_hypotheses=4, length_penalty=2.0, max_length=6, no_repeat_ngram_size=1),
    Sample(seed=3, temperature=2.0, num_samples=6),
    Beam(beam_size=4, num_hypotheses=4, max_length=7, no_repeat_ngram_size=3, bad_endings=("paper", "the", "a")),
    Sample(seed=9, temperature=1.5, top_k=5, top_p=0.9, num_samples=4, prefix="there is", min_length=5),
    Sample(seed=2, temperature=2.0, num_samples=4, bad_endings=("paper", "the", "a"), no_repeat_ngram_size=2),
)
CONSTRAINTS: dict[str, dict[str, Any]] = {
    "none": {},
    "prefix": {"prefix": "A blue"},
    "suppress": {"suppress": ("Red", "yellow", "zebra")},
    "min_length": {"min_length": 9},
    "max_length": {"max_length": 4},
    "no_repeat": {"no_repeat_ngram_size": 1, "min_length": 6},
    "bad_endings": {"bad_endings": ("Paper", "circle", "square", "zebra"), "no_repeat_ngram_size": 2},
    "cut": {"bad_endings": ("red", "is", "on"), "max_length": 3},
    "all": {"prefix": "there is", "suppress": ("on",), "min_length": 6, "max_length": 8, "no_repeat_ngram_size": 2},
}


@pytest.mark.parametrize("decoding", WAYS, ids=str)
def test_the_numbers_of_every_hypothesis_agree(
    tiny_captioner: Captioner, images: list[Path], decoding: Decoding
) -> None:
    penalty = getattr(decoding, "length_penalty", None)
    if penalty is None:
        penalty = tiny_captioner.bundle.manifest.defaults.length_penalty
    for caption in tiny_captioner.caption(images, decoding):
        first = caption.alternatives[0]
        for name in first.__slots__:
            assert getattr(caption, name) is getattr(first, name)
        for one in caption.alternatives:
            assert one.finished == (one.tokens[-1] == "#END#")
            assert one.text == " ".join(one.tokens[: -1 if one.finished else None])
            assert not {*one.tokens[:-1]} & {*SPECIAL_WORDS}
            assert len(one.tokens) == len(one.token_log_probs)
            assert max(one.token_log_probs) <= 0
            assert sum(one.token_log_probs) == pytest.approx(one.log_prob, abs=1e-6)
            assert one.score == pytest.approx(one.log_prob / len(one.tokens) ** penalty, abs=1e-5)
            assert isinstance(one.score, float)


@pytest.mark.parametrize("decoding", WAYS, ids=str)
def test_alternatives_all_differ_and_come_best_first(
    tiny_captioner: Captioner, images: list[Path], decoding: Decoding
) -> None:
    most = getattr(decoding, "num_hypotheses", 0) or getattr(decoding, "num_samples", 1)
    counts = []
    for caption in tiny_captioner.caption(images, decoding):
        every = caption.alternatives
        assert len({one.tokens for one in every}) == len(every) == len({one.text for one in every})
        assert [(not one.finished, -one.score) for one in every] == sorted((not o.finished, -o.score) for o in every)
        counts.append(len(every))
    if isinstance(decoding, Beam) or most == 1:
        assert set(counts) == {most}
    else:
        assert 1 < max(counts) <= most


@pytest.mark.parametrize("constraints", CONSTRAINTS)
@pytest.mark.parametrize("way", [Greedy, Beam, Sample])
def test_every_sentence_obeys_its_constraints_and_scores_as_if_it_were_given(
    tiny_captioner: Captioner, images: list[Path], way: Any, constraints: str
) -> None:
    several: dict[Any, dict[str, Any]] = {
        Greedy: {},
        Beam: {"num_hypotheses": 3},
        Sample: {"seed": 5, "num_samples": 3, "temperature": 1.5},
    }
    wanted = CONSTRAINTS[constraints]
    captions = tiny_captioner.caption(images[:6], way(**several[way], **wanted))
    hypotheses = [(image, one) for image, c in zip(images, captions, strict=False) for one in c.alternatives]
    prefix = wanted.get("prefix", "").lower().split()
    most = wanted.get("max_length", tiny_captioner.bundle.manifest.defaults.max_length)
    for _, one in hypotheses:
        said = one.text.split()
        assert said[: len(prefix)] == prefix
        assert not {*said} & {word.lower() for word in wanted.get("suppress", ())}
        assert len(one.tokens) <= most
        assert one.finished or len(one.tokens) == most
        if one.finished:
            assert len(said) >= wanted.get("min_length", 0)
        assert not {*said[-1:]} & {word.lower() for word in wanted.get("bad_endings", ())}
        if size := wanted.get("no_repeat_ngram_size"):
            grams = [tuple(said[i : i + size]) for i in range(len(said) - size + 1)]
            assert len(set(grams)) == len(grams)
    finished = [(image, one) for image, one in hypotheses if one.finished]
    assert finished or constraints in ("max_length", "cut")
    scores = tiny_captioner.score([image for image, _ in finished], [one.text for _, one in finished])
    assert scores.dtype == np.float64
    np.testing.assert_allclose(scores, [one.log_prob for _, one in finished], atol=1e-4)


def test_constraints_change_what_the_tiny_model_would_say(tiny_captioner: Captioner, images: list[Path]) -> None:
    plain = [caption.text for caption in tiny_captioner.caption(images, Greedy())]
    for name, constraints in CONSTRAINTS.items():
        told = [caption.text for caption in tiny_captioner.caption(images, Greedy(**constraints))]
        assert (told != plain) == (name != "none")


def test_the_style_changes_the_text_and_nothing_else(tiny_captioner: Captioner, images: list[Path]) -> None:
    for way in (Greedy, Beam, Sample):
        given: dict[Any, Any] = {Beam: {"num_hypotheses": 3}, Sample: {"seed": 1, "num_samples": 3}}.get(way, {})
        plain = tiny_captioner.caption(images, way(**given))
        styled = tiny_captioner.caption(images, way(style="sentence", **given))
        for one, other in zip(plain, styled, strict=True):
            assert other.text == other.alternatives[0].text
            for before, after in zip(one.alternatives, other.alternatives, strict=True):
                assert after.text == (f"{before.text.capitalize()}." if before.text else "")
                assert replace(after, text=before.text) == before


def test_given_captions_of_any_length_score_in_order(tiny_captioner: Captioner, images: list[Path]) -> None:
    given = [
        "A red circle!",
        "",
        "there is a blue square on the paper",
        "zebra",
        "a",
        "the the the",
        "Red",
        "a red",
        "a",
    ]
    together = tiny_captioner.score(images[: len(given)], given)
    alone = [tiny_captioner.score([image], [text])[0] for image, text in zip(images, given, strict=False)]
    np.testing.assert_allclose(together, alone, atol=1e-4)
    assert (together < 0).all()
    np.testing.assert_allclose(together[3], tiny_captioner.score(images[3:4], ["unknownword"]), atol=1e-4)


def test_a_seed_repeats_its_words_and_no_seed_never_does(tiny_captioner: Captioner, images: list[Path]) -> None:
    def draws(seed: int | None) -> list[list[str]]:
        return texts(tiny_captioner.caption(images, Sample(temperature=5.0, seed=seed, num_samples=2)))

    assert draws(7) == draws(7) != draws(8)
    assert draws(None) != draws(None)
    same = texts(tiny_captioner.caption([images[0]] * 8, Sample(temperature=5.0)))
    assert len({text for (text,) in same}) > 1  # without a seed, equal images draw apart


def test_defaults_come_from_the_manifest_and_explicit_values_win(
    tiny_captioner: Captioner, images: list[Path], tmp_path: Path
) -> None:
    bundle = Path(shutil.copytree(tiny_captioner.bundle.path, tmp_path / "bundle"))
    asked: dict[str, Any] = {"no_repeat_ngram_size": 1, "bad_endings": ("paper",)}
    amend(bundle, defaults=asked)
    captioner = Captioner(bundle, provider="cpu", batch_size=8)
    for way in (Greedy, Beam, Sample):
        given: dict[str, Any] = {"seed": 1} if way is Sample else {}
        off = way(no_repeat_ngram_size=0, bad_endings=(), min_length=8, **given)
        plain = tiny_captioner.caption(images, way(min_length=8, **given))
        constrained = captioner.caption(images, way(min_length=8, **given))
        assert texts(plain) != texts(constrained)
        assert_same(constrained, tiny_captioner.caption(images, way(min_length=8, **asked, **given)))
        assert_same(captioner.caption(images, off), plain)
