"""A JPEG file shrunk while it is decoded, and decoded by simplejpeg, is the picture that Pillow decodes."""

import io
import warnings
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile, JpegImagePlugin

from engine.errors import ImageError
from engine.images import jpeg
from engine.images.load import load_pixels
from tests.engine.images.pictures import encoded

ImageFile.MAXBLOCK = 1 << 20  # Pillow's buffer is too small to write noisy photographs in full quality
SAMPLES = [Image.open(path).convert("RGB") for path in sorted((Path(__file__).parents[3] / "samples").glob("*.jpg"))]
needs_simplejpeg = pytest.mark.skipif(find_spec("simplejpeg") is None, reason="simplejpeg is not installed")
needs_quick = pytest.mark.skipif(
    not (find_spec("simplejpeg") and find_spec("cykooz_resizer")), reason='the extra "fast" is not installed'
)
sides = st.integers(1, 150)


@st.composite
def jpegs(draw: st.DrawFn, sides: st.SearchStrategy[int] = sides) -> bytes:
    """A photograph as a JPEG file of any size, quality, subsampling, colour space and order of scans."""
    image = draw(st.sampled_from(SAMPLES)).resize((draw(sides), draw(sides)))
    colours: dict[str, Any] = draw(
        st.sampled_from([*({"subsampling": n} for n in (0, 1, 2)), {"subsampling": 0, "keep_rgb": True}, {}])
    )
    if not colours:
        image = image.convert("L")
    scans: dict[str, Any] = draw(st.sampled_from([{}, {"progressive": True}, {"restart_marker_blocks": 3}]))
    return encoded(image, quality=draw(st.integers(1, 100)), **colours, **scans)


def fully_decoded(data: bytes, height: int, width: int) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB").resize((width, height), Image.Resampling.BICUBIC))


def read(data: Any, height: int, width: int, **options: Any) -> np.ndarray | str:
    try:
        return load_pixels(data, height=height, width=width, **options)
    except ImageError as error:
        return error.reason


def mean_difference(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.abs(one.astype(int) - other).mean())


# --- shrinking


@settings(max_examples=100, deadline=None, derandomize=True)
@given(data=jpegs(), height=sides, width=sides)
def test_below_twice_the_asked_size_pixels_are_a_full_decode_and_one_resize(
    data: bytes, height: int, width: int
) -> None:
    stored = Image.open(io.BytesIO(data)).size
    if stored[0] >= 2 * width and stored[1] >= 2 * height:
        height = stored[1] // 2 + 1
    np.testing.assert_array_equal(load_pixels(data, height=height, width=width), fully_decoded(data, height, width))


def test_nearest_takes_pixels_of_the_full_decode() -> None:
    data = encoded(SAMPLES[1].resize((640, 480)))
    expected = np.asarray(Image.open(io.BytesIO(data)).resize((50, 40), Image.Resampling.NEAREST))
    for quick in (False, True):
        pixels = load_pixels(data, height=40, width=50, resample="nearest", quick=quick)
        np.testing.assert_array_equal(pixels, expected)


def test_the_first_picture_of_several_is_shrunk() -> None:
    first, second = SAMPLES[0].resize((640, 480)), SAMPLES[1].resize((640, 480))
    data = encoded(first, "MPO", save_all=True, append_images=[second])
    assert type(Image.open(io.BytesIO(data))) is not JpegImagePlugin.JpegImageFile
    for quick in (False, True):
        pixels = load_pixels(data, height=100, width=100, quick=quick)
        assert mean_difference(pixels, fully_decoded(data, 100, 100)) < 1.5


def test_a_callers_image_is_not_shrunk() -> None:
    data = encoded(SAMPLES[0].resize((640, 480)))
    image = Image.open(io.BytesIO(data))
    np.testing.assert_array_equal(load_pixels(image, height=50, width=50), fully_decoded(data, 50, 50))
    assert image.size == (640, 480)


# --- simplejpeg


@needs_simplejpeg
@settings(max_examples=150, deadline=None, derandomize=True)
@given(data=jpegs(st.integers(jpeg.LEAST_SIDE, 300)), height=sides, width=sides, after=st.binary(max_size=20))
def test_simplejpeg_decodes_what_pillow_decodes(data: bytes, height: int, width: int, after: bytes) -> None:
    image: Any = Image.open(io.BytesIO(data))
    jpeg.shrink(image, width, height)
    rows = jpeg.decode(image, io.BytesIO(data + after)) if min(image.size) >= jpeg.LEAST_SIDE else None
    if rows is None:
        assert min(image.size) < jpeg.LEAST_SIDE
    else:
        assert rows == image.convert("RGB").tobytes()


@needs_quick
@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    data=jpegs(st.integers(8, 200)),
    height=sides,
    width=sides,
    cut=st.one_of(st.just(1.0), st.floats(0, 1)),
    flips=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(1, 255)), max_size=3),
)
def test_a_broken_file_is_refused_or_shown_as_it_is_without_simplejpeg(
    data: bytes, height: int, width: int, cut: float, flips: list[tuple[float, int]]
) -> None:
    broken = bytearray(data[: int(cut * len(data))])
    for place, mask in flips if broken else []:
        broken[int(place * len(broken))] ^= mask
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns of broken metadata in pictures that it then reads
        got = read(broken, height, width, quick=True, max_pixels=100_000)
        patch.setattr(jpeg, "simplejpeg", None)
        without = read(broken, height, width, quick=True, max_pixels=100_000)
        plain = read(broken, height, width, max_pixels=100_000)
    np.testing.assert_array_equal(got, without)
    if isinstance(got, str) or isinstance(plain, str):
        assert got == plain


@needs_quick
def test_every_plain_photograph_takes_the_quick_way(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def slow(*_: object) -> None:
        raise AssertionError

    data = encoded(SAMPLES[0].resize((640, 480)))
    path = tmp_path / "photo.jpg"
    path.write_bytes(data)
    expected = load_pixels(data, height=50, width=60, quick=True)
    monkeypatch.setattr(ImageFile.ImageFile, "load", slow)
    monkeypatch.setattr(Image.Image, "resize", slow)
    for source in (data, bytearray(data), memoryview(data), io.BytesIO(data), path, str(path)):
        np.testing.assert_array_equal(load_pixels(source, height=50, width=60, quick=True), expected)
    with path.open("rb") as file:
        np.testing.assert_array_equal(load_pixels(file, height=50, width=60, quick=True), expected)


def test_other_colour_spaces_go_pillows_way() -> None:
    data = encoded(SAMPLES[0].convert("CMYK"), quality=95)
    image: Any = Image.open(io.BytesIO(data))
    assert jpeg.decode(image, io.BytesIO(data)) is None
    pixels = load_pixels(data, height=300, width=300, quick=True)
    assert mean_difference(pixels, fully_decoded(data, 300, 300)) < 0.5


@needs_simplejpeg
def test_a_truncated_file_that_pillow_was_told_to_show_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    data = encoded(SAMPLES[0])[:-5000]
    assert "truncated" in str(read(data, 300, 300, quick=True))
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    assert mean_difference(load_pixels(data, height=300, width=300, quick=True), fully_decoded(data, 300, 300)) < 0.5


def test_threads_read_photographs_at_once() -> None:
    data = [encoded(sample, quality=80) for sample in SAMPLES] * 8
    for quick in (False, True):
        one_by_one = [load_pixels(entry, height=100, width=90, quick=quick) for entry in data]
        out = np.empty((len(data), 100, 90, 3), np.uint8)
        with ThreadPoolExecutor(8) as pool:
            list(
                pool.map(lambda d, o, q: load_pixels(d, height=100, width=90, out=o, quick=q), data, out, [quick] * 99)
            )
        np.testing.assert_array_equal(out, np.stack(one_by_one))
