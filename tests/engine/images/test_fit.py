"""Squashed, cropped or letterboxed: what is shown is what plain Pillow shows, written out by hand."""

import io
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, ImageOps

from engine import Captioner
from engine.bundle.manifest import RESIZE_RULES, ImageSpec
from engine.errors import ImageError, OptionsError
from engine.images import jpeg
from engine.images.fit import RULES, crop
from engine.images.load import RESAMPLES, load_for_model, load_pixels
from export.additions import amend
from tests.engine.images.pictures import STORED, encoded, photograph

PHOTOGRAPH = Image.open(Path(__file__).parents[3] / "samples" / "coffee.jpg").convert("RGB")
FILL = (124, 116, 104)
needs_quick = pytest.mark.skipif(
    not (find_spec("simplejpeg") and find_spec("cykooz_resizer")), reason='the extra "fast" is not installed'
)
rules = pytest.mark.parametrize("rule", RESIZE_RULES)
SIDES = st.sampled_from([1, 2, 3, 7, 23, 31, 64, 99, 1000])


def by_hand(image: Image.Image, rule: str, height: int, width: int, resample: str = "bicubic") -> np.ndarray:
    """The pixels of an upright RGB image."""
    filter = RESAMPLES[resample]
    across, down = image.size
    if rule == "squash":
        return np.asarray(image.resize((width, height), filter))
    if rule == "crop":
        part = (across, across * height / width) if across / down < width / height else (down * width / height, down)
        left, top = (across - part[0]) / 2, (down - part[1]) / 2
        box = (left, top, across - left, down - top)
        return np.asarray(image.resize((width, height), filter, box=box))
    scale = min(width / across, height / down)
    size = max(1, round(across * scale)), max(1, round(down * scale))
    canvas = Image.new("RGB", (width, height), FILL)
    canvas.paste(image.resize(size, filter), ((width - size[0]) // 2, (height - size[1]) // 2))
    return np.asarray(canvas)


def load(source: Any, rule: str, height: int, width: int, **options: Any) -> np.ndarray:
    return load_pixels(source, height=height, width=width, fit=rule, fill=FILL, **options)


def lying(image: Image.Image, orientation: int) -> Image.Image:
    """The image as it is stored with this EXIF orientation."""
    stored = image.transpose(STORED[orientation]) if orientation in STORED else image.copy()
    stored.getexif()[274] = orientation
    return stored


def mean_difference(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.abs(one.astype(int) - other).mean())


@rules
@pytest.mark.parametrize("resample", RESAMPLES)
def test_all_filters_show_what_pillow_shows_by_hand(rule: str, resample: str) -> None:
    for size in ((640, 480), (480, 640), (300, 300), (100, 30)):
        image = PHOTOGRAPH.resize(size)
        pixels = load(image, rule, 90, 100, resample=resample)
        np.testing.assert_array_equal(pixels, by_hand(image, rule, 90, 100, resample))


@rules
@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    size=st.tuples(SIDES, SIDES),
    target=st.tuples(SIDES, SIDES),
    orientation=st.integers(1, 8),
    format=st.sampled_from(["PNG", "TIFF", "pil", "array"]),
)
def test_any_shape_and_orientation_is_shown_as_by_hand(
    rule: str, size: tuple[int, int], target: tuple[int, int], orientation: int, format: str
) -> None:
    image, (width, height) = PHOTOGRAPH.resize(size), target
    stored = lying(image, orientation)
    source: Any = stored if format == "pil" else np.asarray(image)
    if format in ("PNG", "TIFF"):
        source = encoded(stored, format, exif=stored.getexif())
    pixels = load(source, rule, height, width)
    assert pixels.shape == (height, width, 3)
    np.testing.assert_array_equal(pixels, by_hand(image, rule, height, width))


@rules
@pytest.mark.parametrize("quick", [False, True])
def test_an_image_of_the_asked_size_is_taken_as_it_is(rule: str, quick: bool) -> None:
    image = photograph()
    for source in (image, np.asarray(image), encoded(image, "PNG")):
        np.testing.assert_array_equal(load(source, rule, 23, 31, quick=quick), np.asarray(image))
    data = encoded(image, "JPEG")
    np.testing.assert_array_equal(load(data, rule, 23, 31, quick=quick), np.asarray(Image.open(io.BytesIO(data))))


@pytest.mark.parametrize("size", [(640, 480), (480, 640), (640, 360), (500, 375), (333, 500), (1200, 900)])
def test_a_crop_is_what_resize_and_center_crop_show(size: tuple[int, int]) -> None:
    transforms = pytest.importorskip("torchvision.transforms")
    image = PHOTOGRAPH.resize(size)
    shown = transforms.Compose(
        [transforms.Resize(224, transforms.InterpolationMode.BICUBIC), transforms.CenterCrop(224)]
    )
    assert mean_difference(load(image, "crop", 224, 224), np.asarray(shown(image))) < 2.5, "half a pixel beside"
    assert mean_difference(load(image, "crop", 224, 224), np.asarray(ImageOps.fit(image, (224, 224)))) < 0.05


@needs_quick
@rules
@settings(max_examples=20, deadline=None, derandomize=True)
@given(
    size=st.tuples(st.integers(20, 700), st.integers(20, 700)), height=st.integers(1, 300), width=st.integers(1, 300)
)
def test_the_quick_way_shows_the_same_but_for_a_level(
    rule: str, size: tuple[int, int], height: int, width: int
) -> None:
    image = PHOTOGRAPH.resize(size)
    for source in (image, encoded(image, "PNG")):
        assert mean_difference(load(source, rule, height, width, quick=True), by_hand(image, rule, height, width)) < 0.4


# --- shrunk while they are decoded


@rules
@settings(max_examples=100, deadline=None, derandomize=True)
@given(size=st.tuples(st.integers(1, 900), st.integers(1, 900)), target=st.tuples(SIDES, SIDES), lies=st.booleans())
def test_a_jpeg_is_shrunk_as_far_as_what_is_shown_allows_and_no_further(
    rule: str, size: tuple[int, int], target: tuple[int, int], lies: bool
) -> None:
    stored = lying(Image.new("RGB", size), 6 if lies else 1)
    data = encoded(stored, "JPEG", exif=stored.getexif())
    decoded: list[tuple[int, int]] = []
    with pytest.MonkeyPatch.context() as patch:
        shrink = jpeg.shrink

        def noted(image: Any, width: int, height: int) -> None:
            shrink(image, width, height)
            decoded.append(image.size[::-1] if lies else image.size)

        patch.setattr(jpeg, "shrink", noted)
        load(data, rule, target[1], target[0])
    fit = RULES[rule](size, target)
    left, top, right, bottom = fit.part or (0, 0, *size)
    scale = max(
        n for n in (1, 2, 4, 8) if n == 1 or n <= min((right - left) / fit.target[0], (bottom - top) / fit.target[1])
    )
    assert decoded == [(-(-size[0] // scale), -(-size[1] // scale))]


@rules
@pytest.mark.parametrize("quick", [False, True])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_shrunk_photograph_is_shown_as_its_full_decode(rule: str, quick: bool, orientation: int) -> None:
    for size in ((1001, 667), (603, 1205), (1203, 401)):
        stored = lying(PHOTOGRAPH.resize(size), orientation)
        data = encoded(stored, "JPEG", quality=90, exif=stored.getexif())
        whole = load(Image.open(io.BytesIO(data)), rule, 130, 110)  # a caller's image is not shrunk
        pixels = load(data, rule, 130, 110, quick=quick)
        assert mean_difference(pixels, whole) < 3.5, "which is less than a pixel beside"
        is_fill = (whole == FILL).all(axis=2)
        assert (pixels[is_fill] == FILL).all(), "to the row"


@settings(max_examples=500, deadline=None, derandomize=True)
@given(size=st.tuples(st.integers(1, 20_000), st.integers(1, 20_000)), target=st.tuples(SIDES, SIDES))
def test_a_part_never_lies_outside_the_image(size: tuple[int, int], target: tuple[int, int]) -> None:
    fit = crop(size, target)
    for scale in (1, 2, 4, 8):
        width, height = -(-size[0] // scale), -(-size[1] // scale)
        left, top, right, bottom = fit.box((width, height)) or (0, 0, width, height)
        assert 0 <= left < left + (right - left) <= width
        assert 0 <= top < top + (bottom - top) <= height


# --- fill, limits, faults


@pytest.mark.parametrize("mode", ["RGB", "CMYK", "L", "RGBA", "I;16"])
def test_the_fill_is_no_part_of_the_photograph_and_keeps_its_colour(mode: str) -> None:
    image = photograph(60, 20).convert(mode) if mode != "I;16" else Image.new(mode, (60, 20), 999)
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    for quick in (False, True):
        pixels = load(encoded(image, "TIFF", icc_profile=profile), "letterbox", 30, 30, quick=quick)
        assert (pixels[:10] == FILL).all()
        assert (pixels[20:] == FILL).all()
        assert (pixels[10:20] != FILL).any(axis=2).mean() > 0.9


def test_colours_are_converted_before_the_fill_is_added() -> None:
    from tests.engine.images.test_colour import ADOBE, profile

    data = encoded(photograph(60, 20), "PNG", icc_profile=profile(ADOBE, 2.2))
    for quick in (False, True):
        pixels = load(data, "letterbox", 60, 60, quick=quick)
        np.testing.assert_array_equal(pixels[20:40], load_pixels(data, height=20, width=60, quick=quick))
        assert (pixels[:20] == FILL).all()


def test_a_long_strip_that_cannot_be_squashed_can_be_cropped_and_letterboxed() -> None:
    strip = b"P5 1 9000000 255\n" + bytes(9_000_000)
    with pytest.raises(ImageError, match="too large"):
        load(strip, "squash", 260, 260)
    assert not load(strip, "crop", 260, 260).any()
    pixels = load(strip, "letterbox", 260, 260)
    assert not pixels[:, 129].any()
    assert (np.delete(pixels, 129, axis=1) == FILL).all()


def test_an_unknown_rule_or_filter_is_an_options_error() -> None:
    with pytest.raises(OptionsError, match="fit must be one of squash, crop, letterbox, not 'pad'"):
        load(photograph(), "pad", 8, 8)
    with pytest.raises(OptionsError, match="resample must be one of nearest, box"):
        load(photograph(), "crop", 8, 8, resample="sharp")


# --- the manifest's word


def test_an_image_is_loaded_as_the_manifest_says() -> None:
    for rule in RESIZE_RULES:
        spec = ImageSpec(50, 60, (123.7, 116.3, 103.5), (58.0, 57.0, 57.0), rule, "bilinear")
        assert spec.fill == FILL
        pixels = load_for_model(PHOTOGRAPH, spec)
        np.testing.assert_array_equal(pixels, by_hand(PHOTOGRAPH, rule, 50, 60, "bilinear"))
    assert replace(spec, mean=(-3.0, 255.7, 0.4)).fill == (0, 255, 0)


def test_a_captioner_sees_images_as_its_bundle_says(tiny_captioner: Captioner, tmp_path: Path) -> None:
    import shutil

    bundle = Path(shutil.copytree(tiny_captioner.bundle.path, tmp_path / "bundle"))
    image, found = PHOTOGRAPH.resize((320, 200)), []
    for rule in RESIZE_RULES:
        spec = amend(bundle, resize=rule).image
        features = Captioner(bundle, provider="cpu", precision="fp32").encode([image, encoded(image, "PNG")])
        expected = tiny_captioner.encode([load_for_model(image, spec)])
        np.testing.assert_allclose(features, np.repeat(expected, 2, axis=0), rtol=1e-4, atol=1e-5)
        found.append(features[0])
    assert np.abs(found[0] - found[1]).max() > 1e-3
    assert np.abs(found[0] - found[2]).max() > 1e-3
