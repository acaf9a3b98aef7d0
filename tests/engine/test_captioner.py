"""The laws of the Captioner, on the tiny trained model: real graphs, real images."""

import io
import itertools
import pickle
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from engine import Beam, Caption, Captioner, Greedy, ImageError, OptionsError, RuntimeOptions, Sample
from engine.bundle.vocabulary import SPECIAL_WORDS
from engine.images.load import load_pixels
from engine.options import Decoding
from export.additions import amend
from training.models.checkpoint import load_checkpoint

BEST: tuple[Decoding, ...] = (Greedy(), Beam(beam_size=4), Sample(seed=3, temperature=2.0))
SEVERAL: tuple[Decoding, ...] = (
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


@pytest.fixture(scope="module")
def images(drawn_data: Path) -> list[Path]:
    """Twelve drawings that the model was not trained on."""
    return sorted((drawn_data / "images").iterdir())[-12:]


def texts(captions: list[Caption]) -> list[list[str]]:
    return [[other.text for other in caption.alternatives] for caption in captions]


def assert_equal(found: list[Caption], expected: list[Caption]) -> None:
    """Same words; same numbers but for rounding."""
    assert texts(found) == texts(expected)
    for one, other in zip(found, expected, strict=True):
        assert one.tokens == other.tokens
        assert one.token_log_probs == pytest.approx(other.token_log_probs, abs=1e-4)
        assert one.score == pytest.approx(other.score, abs=1e-4)


# --- batches


def test_decodes_too_wide_for_the_whole_batch_are_split_unseen(tiny_captioner: Captioner, images: list[Path]) -> None:
    for decoding in (Beam(beam_size=200, num_hypotheses=3), Sample(seed=1, temperature=2.0, num_samples=300)):
        together = tiny_captioner.caption(images[:4], decoding)
        assert_equal(together[3:], tiny_captioner.caption(images[3:4], decoding))


def test_nothing_in_gives_nothing_out(tiny_captioner: Captioner) -> None:
    size = tiny_captioner.bundle.manifest.feature_size
    for decoding in BEST:
        assert tiny_captioner.caption([], decoding) == []
        assert tiny_captioner.caption_features(np.empty((0, size), np.float32), decoding) == []
    assert list(tiny_captioner.iter_captions(iter(()))) == []
    assert tiny_captioner.encode([]).shape == (0, size)
    assert tiny_captioner.encode([]).dtype == np.float32
    assert tiny_captioner.score([], []).shape == (0,)


# --- inputs


@pytest.fixture(scope="module")
def kinds(images: list[Path]) -> dict[str, Any]:
    """One drawing in every way that a caller may hold it."""
    with Image.open(images[0]) as opened:
        image = opened.convert("RGB")
    return {
        "path": images[0],
        "text": str(images[0]),
        "bytes": images[0].read_bytes(),
        "bytearray": bytearray(images[0].read_bytes()),
        "memoryview": memoryview(images[0].read_bytes()),
        "image": image,
        "array": np.asarray(image),
        "grey array": np.asarray(image.convert("L")),
    }


def test_inputs_of_all_kinds_mix_and_are_the_pixels_that_images_make_of_them(
    tiny_captioner: Captioner, kinds: dict[str, Any]
) -> None:
    pixels = [load_pixels(image, height=160, width=160) for image in kinds.values()]
    mixed = [*kinds.values(), io.BytesIO(kinds["bytes"])]
    np.testing.assert_allclose(tiny_captioner.encode(mixed), tiny_captioner.encode([*pixels, pixels[0]]), atol=1e-5)
    captions = tiny_captioner.caption([*kinds.values(), io.BytesIO(kinds["bytes"])])
    assert_equal(captions, tiny_captioner.caption([*pixels, pixels[0]]))
    assert_equal(captions[1:7], captions[:1] * 6)


def test_an_array_of_images_is_a_batch(tiny_captioner: Captioner, images: list[Path]) -> None:
    pixels = np.stack([load_pixels(image, height=160, width=160) for image in images[:3]])
    assert_equal(tiny_captioner.caption(pixels), tiny_captioner.caption(images[:3]))


@pytest.mark.parametrize(
    "kind", ["path", "text", "bytes", "bytearray", "memoryview", "image", "array", "grey array", "file"]
)
def test_one_image_in_place_of_a_batch_is_a_clear_error(
    tiny_captioner: Captioner, kinds: dict[str, Any], kind: str
) -> None:
    image = io.BytesIO(kinds["bytes"]) if kind == "file" else kinds[kind]
    calls: list[Callable[[], object]] = [
        lambda: tiny_captioner.caption(image),
        lambda: tiny_captioner.iter_captions(image),
        lambda: tiny_captioner.encode(image),
        lambda: tiny_captioner.score(image, ["a dog"]),
    ]
    for call in calls:
        with pytest.raises(OptionsError, match=r"batch of images, but got a single \w+: pass \[image\]"):
            call()


# --- errors


def test_a_batch_of_broken_images_only_is_a_list_of_errors(tiny_captioner: Captioner) -> None:
    results = tiny_captioner.caption([b""] * 20, on_error="return")
    assert [result.entry for result in results if isinstance(result, ImageError)] == list(range(20))


def test_an_image_error_reaches_another_process_whole() -> None:
    error = ImageError("is empty", source="a.jpg", entry=3, advice="fill it")
    copied = pickle.loads(pickle.dumps(error))
    assert str(copied) == str(error) == "entry 3 (a.jpg): is empty; fill it"
    assert vars(copied) == vars(error)


def test_images_above_the_limit_of_the_captioner_are_refused(tiny_bundle: Path) -> None:
    captioner = Captioner(tiny_bundle, provider="cpu", max_pixels=100)
    with pytest.raises(ImageError, match=r"entry 1 .*more than the limit of 100"):
        captioner.caption([np.zeros((10, 10), np.uint8), np.zeros((10, 11), np.uint8)])


def test_wrong_arguments_are_refused(tiny_captioner: Captioner, images: list[Path]) -> None:
    anything: Any = tiny_captioner
    with pytest.raises(OptionsError, match="on_error='skip'"):
        anything.caption(images, on_error="skip")
    with pytest.raises(OptionsError, match="on_error='skip'"):
        anything.iter_captions(images, on_error="skip")
    with pytest.raises(OptionsError, match="1 images and 2 captions"):
        tiny_captioner.score(images[:1], ["a", "b"])
    size = tiny_captioner.bundle.manifest.feature_size
    for shape in ((size,), (2, size + 1), (1, 2, size)):
        with pytest.raises(OptionsError, match="features have shape"):
            tiny_captioner.caption_features(np.zeros(shape, np.float32))


@pytest.mark.parametrize("name", ["batch_size", "max_pixels"])
@pytest.mark.parametrize("value", [0, 1.5, "8", True, None])
def test_limits_that_are_no_whole_numbers_are_refused(tiny_bundle: Path, name: str, value: Any) -> None:
    with pytest.raises(OptionsError, match=name):
        Captioner(tiny_bundle, provider="cpu", **{name: value})


@pytest.mark.parametrize("decoding", [Beam, "beam", None, {"beam_size": 3}])
def test_what_is_no_decoding_is_refused(tiny_captioner: Captioner, images: list[Path], decoding: Any) -> None:
    with pytest.raises(OptionsError, match="Greedy"):
        tiny_captioner.caption(images[:1], decoding)


def test_a_generator_is_read_as_its_captions_are_taken_two_batches_ahead_at_most(
    tiny_bundle: Path, images: list[Path]
) -> None:
    captioner = Captioner(tiny_bundle, provider="cpu", batch_size=3)
    read: list[int] = []

    def endless() -> Iterator[Path]:
        for i in itertools.count():
            read.append(i)
            yield images[i % len(images)]

    captions = captioner.iter_captions(endless())
    assert read == []
    first = []
    for taken in range(1, 9):
        first.append(next(captions))
        assert len(read) <= taken + 2 * 3
    captions.close()  # type: ignore[attr-defined]
    assert_equal(first, captioner.caption(images[:8]))


# --- what a caption says


@pytest.mark.parametrize("decoding", [*BEST, *SEVERAL], ids=str)
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


@pytest.mark.parametrize("decoding", [*BEST, *SEVERAL], ids=str)
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
        assert_equal(constrained, tiny_captioner.caption(images, way(min_length=8, **asked, **given)))
        assert_equal(captioner.caption(images, off), plain)


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


def test_the_captions_of_features_are_the_captions_of_their_images(
    tiny_captioner: Captioner, images: list[Path]
) -> None:
    features = tiny_captioner.encode(images)
    assert features.shape == (len(images), tiny_captioner.bundle.manifest.feature_size)
    assert features.dtype == np.float32
    for decoding in BEST:
        expected = tiny_captioner.caption(images, decoding)
        assert_equal(tiny_captioner.caption_features(features, decoding), expected)
        strided = np.asfortranarray(np.repeat(features, 2, axis=0))[::2].astype(np.float64)
        assert_equal(tiny_captioner.caption_features(strided, decoding), expected)


def test_a_seed_repeats_its_words_and_no_seed_never_does(tiny_captioner: Captioner, images: list[Path]) -> None:
    def draws(seed: int | None) -> list[list[str]]:
        return texts(tiny_captioner.caption(images, Sample(temperature=5.0, seed=seed, num_samples=2)))

    assert draws(7) == draws(7) != draws(8)
    assert draws(None) != draws(None)
    same = texts(tiny_captioner.caption([images[0]] * 8, Sample(temperature=5.0)))
    assert len({text for (text,) in same}) > 1  # without a seed, equal images draw apart


# --- the same numbers by two ways


def test_the_graphs_are_pytorch(tiny_captioner: Captioner, tiny_run: Path, images: list[Path]) -> None:
    features, vocabulary = tiny_captioner.encode(images), tiny_captioner.bundle.vocabulary
    decoder = load_checkpoint(tiny_run).decoder
    never = [vocabulary.pad_id, vocabulary.unk_id, vocabulary.start_id]
    for feature, caption in zip(features, tiny_captioner.caption(images, Greedy()), strict=True):
        with torch.no_grad():
            state, context = decoder.start(torch.from_numpy(feature[None]))
            token, words, total = vocabulary.start_id, list[str](), 0.0
            while token != vocabulary.end_id and len(words) < tiny_captioner.bundle.manifest.defaults.max_length:
                logits, state = decoder.step(torch.tensor([token]), state, context)
                log_probs = torch.log_softmax(logits[0].double(), dim=-1)
                log_probs[never] = -torch.inf
                token = int(log_probs.argmax())
                total += float(log_probs[token])
                words.append(vocabulary.words[token])
        assert caption.tokens == tuple(words)
        assert caption.log_prob == pytest.approx(total, abs=1e-4)


# --- what it tells of itself


def test_provider_precision_and_bundle_are_readable(tiny_bundle: Path) -> None:
    captioner = Captioner(str(tiny_bundle), provider="cpu", precision="fp32", runtime=RuntimeOptions(threads=1))
    assert (captioner.provider, captioner.precision) == ("cpu", "fp32")
    assert captioner.bundle.path == tiny_bundle
    assert "provider='cpu'" in repr(captioner)
    assert Captioner(tiny_bundle, provider="cpu").precision == "fp32"


def test_numbers_of_numpy_decode_as_pythons_own(tiny_captioner: Captioner, images: list[Path]) -> None:
    narrow: Any = np.int8
    assert_equal(
        tiny_captioner.caption(images[:2], Beam(beam_size=narrow(100), max_length=np.int32(9))),  # type: ignore[arg-type]
        tiny_captioner.caption(images[:2], Beam(beam_size=100, max_length=9)),
    )
    assert_equal(
        tiny_captioner.caption(images[:2], Sample(top_k=narrow(3), temperature=np.float32(0.5), seed=2)),  # type: ignore[arg-type]
        tiny_captioner.caption(images[:2], Sample(top_k=3, temperature=0.5, seed=2)),
    )


@pytest.mark.parametrize("wrong", [None, 0, b"a circle"])
def test_captions_that_are_not_text_are_refused_before_any_image_is_read(tiny_captioner: Captioner, wrong: Any) -> None:
    with pytest.raises(OptionsError, match="captions must be text"):
        tiny_captioner.score(["no such file.jpg"], [wrong])
