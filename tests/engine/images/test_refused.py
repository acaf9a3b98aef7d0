"""What is no image, or too large an image, is one ImageError that says so; nothing hostile is anything else."""

import contextlib
import io
import os
import stat
import struct
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from engine.errors import ImageError
from engine.images.faults import describe
from engine.images.load import load_pixels
from tests.engine.images.pictures import FORMATS, encoded, exact, exif, photograph, same, sixteen_bit


def refused(source: Any, because: str, **options: Any) -> ImageError:
    with pytest.raises(ImageError, match=because) as caught:
        load_pixels(source, height=8, width=8, **options)
    assert "\n" not in str(caught.value)
    assert str(caught.value).removesuffix(f"; {caught.value.advice}") == f"{describe(source)}: {caught.value.reason}"
    assert isinstance(caught.value, ValueError)
    return caught.value


@pytest.mark.parametrize(
    ("shape", "kind"),
    [
        *(((5, 5, 3), kind) for kind in ("float32", "uint16", "int8")),
        *(((5, 5), kind) for kind in ("bool", "object")),
        *((s, "uint8") for s in ((5, 5, 4), (5, 5, 1), (3, 5, 5), (1, 5, 5, 3), (5,), (), (0, 5, 3), (5, 0))),
    ],
)
def test_an_array_of_another_type_or_shape_is_refused(shape: tuple[int, ...], kind: str) -> None:
    refused(np.zeros(shape, kind), r"must be uint8 of shape \(height, width, 3\) or \(height, width\) and not empty")


@pytest.mark.parametrize("format", ["PNG", "JPEG", "GIF", "TIFF", "WEBP", "BMP"])
def test_an_image_over_the_limit_is_refused_from_its_header_alone(format: str) -> None:
    data = encoded(photograph(200, 100), format)
    header = data if format in ("TIFF", "WEBP") else data[: len(data) // 2]  # TIFF's stands at the end
    error = refused(header, r"has 20,000 pixels \(200 x 100\), more than the limit of 19,999", max_pixels=19_999)
    assert (str(error).partition("; ")[2], error.reason[-6:]) == ("raise max_pixels if you trust it", "19,999")
    load_pixels(data, height=4, width=4, max_pixels=20_000)


def test_the_limit_holds_for_arrays_and_pil_images() -> None:
    refused(Image.new("RGB", (0, 5)), "has no pixels")
    refused(np.zeros((10, 10, 3), np.uint8), "more than the limit of 99", max_pixels=99)
    refused(Image.new("RGB", (10, 10)), "more than the limit of 99", max_pixels=99)


def test_the_default_limit_refuses_a_bomb_without_decoding_it() -> None:
    bomb = b"P6 20000 20000 255\n" + bytes(99)
    refused(bomb, r"has 400,000,000 pixels \(20,000 x 20,000\), more than the limit of 152,000,000")


@pytest.mark.parametrize("format", ["PNG", "JPEG", "TIFF", "WEBP", "BMP", "GIF"])
def test_only_our_limit_counts_and_pillows_neither_warns_nor_raises(
    format: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = encoded(photograph(), format)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 31 * 23 - 1 if format == "WEBP" else 100)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        exact(data)
    with pytest.raises((Image.DecompressionBombError, Image.DecompressionBombWarning)):
        Image.open(io.BytesIO(data)).load()
    assert Image.MAX_IMAGE_PIXELS in (100, 31 * 23 - 1)


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw"])
def test_a_large_palette_tiff_with_an_orientation_is_read_without_pillows_limit(
    compression: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = photograph(23, 31).convert("P")
    image.getexif()[274] = 6
    data = encoded(image, "TIFF", compression=compression, exif=image.getexif())
    expected = Image.open(io.BytesIO(data))
    expected.load()
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    same(data, expected)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "JPEG2000", "AVIF"])
def test_a_truncated_file_is_refused(format: str) -> None:
    data = encoded(photograph(300, 200), format)
    refused(data[: len(data) * 2 // 3], "cannot be decoded|not an image")


def test_what_is_no_image_is_refused_with_its_reason(tmp_path: Path) -> None:
    (tmp_path / "empty.jpg").touch()
    read, closed = io.BytesIO(b"x"), io.BytesIO(b"x")
    closed_image = Image.open(io.BytesIO(encoded(photograph(), "PNG")))
    read.seek(1)
    closed.close()
    closed_image.close()
    reasons: dict[str, list[Any]] = {
        "is empty": [b"", bytearray(), io.BytesIO(), read, tmp_path / "empty.jpg"],
        "there is no such file": [
            tmp_path / "no.jpg",
            tmp_path / "no/such/folder.jpg",
            tmp_path / "empty.jpg/photo.jpg",
        ],
        "is a folder, not an image file": [tmp_path, ""],
        "cannot be decoded: embedded null byte|there is no such file": ["photo\0.jpg"],
        "cannot be read: File name too long": ["x" * 5000],
        "cannot be decoded: a bytes-like object is required, not 'str'|binary mode": [io.StringIO("words")],
        "closed": [closed],
        "cannot be decoded": [closed_image],
        "is not an image: pass a path, bytes, a binary file, a PIL": [None, 5, 0.5, [1, 2], {"image": 1}, object],
    }
    for because, sources in reasons.items():
        for source in sources:
            refused(source, because)


def test_text_named_like_an_image_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "photo.jpg"
    path.write_text("these are words, not pixels\n" * 50)
    error = refused(path, "is not an image of a known format, or its header is broken")
    assert error.source == str(path)
    assert error.entry is None


def test_a_file_without_permission_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "secret.jpg"
    path.write_bytes(encoded(photograph(), "JPEG"))
    path.chmod(0)
    if os.access(path, os.R_OK):  # root may read everything

        def denied(*_: object) -> None:
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(Path, "open", denied)
    refused(path, "cannot be read: permission denied")
    path.chmod(stat.S_IRWXU)


@pytest.mark.parametrize(
    "error",
    [OSError("a\nb"), SyntaxError(), struct.error("s"), EOFError(), RecursionError("r"), KeyError(5), MemoryError()],
)
def test_whatever_pillow_raises_is_one_image_error(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise error

    monkeypatch.setattr(Image.Image, "resize", broken)
    refused(photograph(), "cannot be decoded: .")


def test_an_interrupt_is_not_an_image_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Image.Image, "resize", interrupted)
    with pytest.raises(KeyboardInterrupt):
        exact(photograph())


def samples() -> dict[str, bytes]:
    image = photograph()
    palette = image.quantize(16)
    data = {format: encoded(image, format) for format in FORMATS if format != "PSD"}
    data["animation"] = encoded(
        image, "GIF", save_all=True, append_images=[Image.new("RGB", (31, 23), "red")], disposal=2
    )
    data["palette"] = encoded(palette, "PNG", transparency=3)
    data["grey 16"] = encoded(Image.fromarray(sixteen_bit()), "PNG")
    data["lzw"] = encoded(image, "TIFF", compression="tiff_lzw")
    data["progressive"] = encoded(image, "JPEG", progressive=True, exif=exif(6))
    return data


SAMPLES = samples()


def pixels_or_image_error(read: Callable[[], np.ndarray]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns of broken metadata in pictures that it then reads
        with contextlib.suppress(ImageError):
            pixels = read()
            assert pixels.shape == (8, 9, 3)
            assert pixels.dtype == np.uint8


@settings(max_examples=150, deadline=None, derandomize=True)
@given(name=st.sampled_from(sorted(SAMPLES)), share=st.floats(0, 1))
def test_any_truncation_gives_pixels_or_an_image_error(name: str, share: float) -> None:
    data = SAMPLES[name]
    cut = data[: int(len(data) * share)]
    pixels_or_image_error(lambda: load_pixels(cut, height=8, width=9, max_pixels=10_000))


@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    name=st.sampled_from(sorted(SAMPLES)),
    flips=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(1, 255)), min_size=1, max_size=8),
    near_header=st.booleans(),
)
def test_any_flipped_bytes_give_pixels_or_an_image_error(
    name: str, flips: list[tuple[float, int]], near_header: bool
) -> None:
    data = bytearray(SAMPLES[name])
    for place, mask in flips:
        data[int(place * (min(120, len(data)) if near_header else len(data)))] ^= mask
    pixels_or_image_error(lambda: load_pixels(data, height=8, width=9, max_pixels=10_000))


@settings(max_examples=100, deadline=None, derandomize=True)
@given(data=st.binary(max_size=200), name=st.sampled_from(sorted(SAMPLES)), kept=st.integers(0, 40))
def test_any_bytes_give_pixels_or_an_image_error(data: bytes, name: str, kept: int) -> None:
    pixels_or_image_error(lambda: load_pixels(SAMPLES[name][:kept] + data, height=8, width=9, max_pixels=10_000))


def test_an_input_is_described_by_its_path_or_what_it_is() -> None:
    assert describe("photo.jpg") == "photo.jpg"
    assert describe(Path("a") / "b.jpg") == str(Path("a") / "b.jpg")
    assert describe("a\nb\udcff.jpg") == r"'a\nb\udcff.jpg'"
    assert describe("") == "''"
    assert describe(bytes(4312)) == "4,312 bytes"
    assert describe(memoryview(bytes(24))) == "24 bytes"
    assert describe(np.zeros((5, 5, 3), np.float32)) == "array (5, 5, 3) float32"
    assert describe(Image.new("L", (4, 3))) == "PIL image 4 x 3 L"
    assert describe(io.BytesIO()) == "BytesIO object"
    assert describe(None) == "NoneType object"
