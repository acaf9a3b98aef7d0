"""The laws of the Captioner, on the tiny trained model: real graphs, real images."""

import io
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from engine import Beam, Captioner, Greedy, ImageError, OptionsError, Sample
from engine.images.load import load_pixels
from engine.options import Decoding
from tests.engine.captions import assert_same

BEST: tuple[Decoding, ...] = (Greedy(), Beam(beam_size=4), Sample(seed=3, temperature=2.0))


def test_decodes_too_wide_for_the_whole_batch_are_split_unseen(tiny_captioner: Captioner, images: list[Path]) -> None:
    for decoding in (Beam(beam_size=200, num_hypotheses=3), Sample(seed=1, temperature=2.0, num_samples=300)):
        together = tiny_captioner.caption(images[:4], decoding)
        assert_same(together[3:], tiny_captioner.caption(images[3:4], decoding))


def test_nothing_in_gives_nothing_out(tiny_captioner: Captioner) -> None:
    size = tiny_captioner.bundle.manifest.feature_shape[0]
    for decoding in BEST:
        assert tiny_captioner.caption([], decoding) == []
        assert tiny_captioner.caption_features(np.empty((0, size), np.float32), decoding) == []
    assert list(tiny_captioner.iter_captions(iter(()))) == []
    assert tiny_captioner.encode([]).shape == (0, size)
    assert tiny_captioner.encode([]).dtype == np.float32
    assert tiny_captioner.score([], []).shape == (0,)


@pytest.fixture(scope="module")
def kinds(images: list[Path]) -> list[Any]:
    """One drawing in every way that a caller may hold it, and in grey."""
    data = images[0].read_bytes()
    image = Image.open(images[0]).convert("RGB")
    held = [images[0], str(images[0]), data, bytearray(data), memoryview(data), image, np.asarray(image)]
    return [*held, np.asarray(image.convert("L"))]


def test_inputs_of_all_kinds_mix_and_are_the_pixels_that_images_make_of_them(
    tiny_captioner: Captioner, kinds: list[Any]
) -> None:
    pixels = [load_pixels(image, height=160, width=160) for image in [*kinds, kinds[0]]]
    captions = tiny_captioner.caption([*kinds, io.BytesIO(kinds[2])])
    assert_same(captions, tiny_captioner.caption(pixels))
    assert_same(captions[1:7], captions[:1] * 6)
    features = tiny_captioner.encode([*kinds, io.BytesIO(kinds[2])])
    np.testing.assert_allclose(features, tiny_captioner.encode(pixels), atol=1e-5)


def test_an_array_of_images_is_a_batch(tiny_captioner: Captioner, images: list[Path]) -> None:
    pixels = np.stack([load_pixels(image, height=160, width=160) for image in images[:3]])
    assert_same(tiny_captioner.caption(pixels), tiny_captioner.caption(images[:3]))


def test_one_image_in_place_of_a_batch_is_a_clear_error(tiny_captioner: Captioner, kinds: list[Any]) -> None:
    for image in [*kinds, io.BytesIO(kinds[2])]:
        calls: list[tuple[Callable[..., object], Any]] = [
            *((call, ()) for call in (tiny_captioner.caption, tiny_captioner.iter_captions, tiny_captioner.encode)),
            (tiny_captioner.score, (["a dog"],)),
        ]
        for call, more in calls:
            with pytest.raises(OptionsError, match=r"batch of images, but got a single \w+: pass \[image\]"):
                call(image, *more)


def test_a_batch_of_broken_images_only_is_a_list_of_errors(tiny_captioner: Captioner) -> None:
    results = tiny_captioner.caption([b""] * 20, on_error="return")
    assert [result.entry for result in results if isinstance(result, ImageError)] == list(range(20))


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
    size = tiny_captioner.bundle.manifest.feature_shape[0]
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
    assert_same(first, captioner.caption(images[:8]))


def test_the_captions_of_features_are_the_captions_of_their_images(
    tiny_captioner: Captioner, images: list[Path]
) -> None:
    features = tiny_captioner.encode(images)
    assert features.shape == (len(images), *tiny_captioner.bundle.manifest.feature_shape)
    assert features.dtype == np.float32
    for decoding in BEST:
        expected = tiny_captioner.caption(images, decoding)
        assert_same(tiny_captioner.caption_features(features, decoding), expected)
        strided = np.asfortranarray(np.repeat(features, 2, axis=0))[::2].astype(np.float64)
        assert_same(tiny_captioner.caption_features(strided, decoding), expected)


def test_numbers_of_numpy_decode_as_pythons_own(tiny_captioner: Captioner, images: list[Path]) -> None:
    narrow: Any = np.int8
    assert_same(
        tiny_captioner.caption(images[:2], Beam(beam_size=narrow(100), max_length=np.int32(9))),  # type: ignore[arg-type]
        tiny_captioner.caption(images[:2], Beam(beam_size=100, max_length=9)),
    )
    assert_same(
        tiny_captioner.caption(images[:2], Sample(top_k=narrow(3), temperature=np.float32(0.5), seed=2)),  # type: ignore[arg-type]
        tiny_captioner.caption(images[:2], Sample(top_k=3, temperature=0.5, seed=2)),
    )


@pytest.mark.parametrize("wrong", [None, 0, b"a circle"])
def test_captions_that_are_not_text_are_refused_before_any_image_is_read(tiny_captioner: Captioner, wrong: Any) -> None:
    with pytest.raises(OptionsError, match="captions must be text"):
        tiny_captioner.score(["no such file.jpg"], [wrong])


def test_captions_have_the_features_that_encode_gives_if_they_are_asked_for(
    tiny_captioner: Captioner, images: list[Path]
) -> None:
    mixed: list[Any] = [*images[:9], b"no image", *images[9:]]
    results = tiny_captioner.caption(mixed, Greedy(), on_error="return", features=True)
    assert isinstance(results.pop(9), ImageError)
    found = [result.features for result in results if not isinstance(result, ImageError)]
    np.testing.assert_allclose(np.stack([row for row in found if row is not None]), tiny_captioner.encode(images))
    assert results == tiny_captioner.caption(images, Greedy())
    assert all(caption.features is None for caption in tiny_captioner.caption(images, Greedy()))
