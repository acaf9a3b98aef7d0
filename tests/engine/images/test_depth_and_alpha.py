"""Pixels of all modes become 8 bits of red, green and blue: scaled and not clipped, transparent ones white."""

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from engine.images.load import load_pixels
from tests.engine.images.pictures import encoded, exact, photograph, same, sixteen_bit


@pytest.mark.parametrize("mode", ["1", "L", "CMYK", "YCbCr", "HSV", "P"])
def test_a_mode_without_alpha_is_converted_to_rgb(mode: str) -> None:
    image = photograph().convert(mode)
    same(image, image)


@pytest.mark.parametrize(
    ("mode", "format"), [("1", "PNG"), ("L", "JPEG"), ("CMYK", "JPEG"), ("CMYK", "TIFF"), ("P", "GIF")]
)
def test_a_file_without_alpha_is_converted_to_rgb(mode: str, format: str) -> None:
    data = encoded(photograph().convert(mode), format)
    opened = Image.open(io.BytesIO(data))
    assert opened.mode == mode or format == "GIF"
    same(data, opened)


def test_a_cmyk_photograph_keeps_its_colours() -> None:
    red = Image.new("RGB", (31, 23), (220, 30, 40))
    error = exact(encoded(red.convert("CMYK"), "JPEG", quality=95)).astype(int) - np.asarray(red)
    assert np.abs(error).max() < 12


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA", "RGBa"])
def test_alpha_is_laid_over_white(mode: str) -> None:
    image = photograph().convert("L").convert("RGB") if mode in ("LA",) else photograph()
    alpha = np.tile(np.array([0, 128, 255], np.uint8), (23, 11))[:, :31]
    transparent = image.copy()
    transparent.putalpha(Image.fromarray(alpha))
    if mode == "PA":
        transparent = image.quantize(64).convert("PA")
        image = transparent.convert("RGB")
        transparent.putalpha(Image.fromarray(alpha))
    else:
        transparent = transparent.convert(mode)
    share = alpha[..., None] / 255
    expected = np.asarray(image) * share + 255 * (1 - share)
    assert np.abs(exact(transparent) - expected).max() <= 2


def test_clear_pixels_are_white_in_every_file_format_that_knows_alpha() -> None:
    clear = Image.new("RGBA", (31, 23), (200, 0, 0, 0))
    for format in ("PNG", "WEBP", "TIFF", "TGA", "QOI", "GIF", "AVIF"):
        assert (exact(encoded(clear, format)) == 255).all(), format
    assert (exact(encoded(clear.convert("LA"), "PNG")) == 255).all()


@pytest.mark.parametrize("transparency", [0, b"\x00" + b"\xff" * 255], ids=["index", "bytes"])
def test_a_transparent_palette_entry_is_white(transparency: int | bytes) -> None:
    image = Image.new("P", (31, 23), 0)
    image.putpalette([200, 0, 0, 0, 0, 200])
    image.paste(1, (10, 0, 31, 23))
    pixels = exact(encoded(image, "PNG", transparency=transparency))
    assert (pixels[:, :10] == 255).all()
    assert (pixels[:, 10:] == (0, 0, 200)).all()


@pytest.mark.parametrize(("mode", "colour"), [("RGB", (10, 20, 30)), ("L", 10)])
def test_a_transparent_colour_is_white(mode: str, colour: Any) -> None:
    image = Image.new(mode, (31, 23), colour)
    image.paste(77 if mode == "L" else (7, 8, 9), (10, 0, 31, 23))
    pixels = exact(encoded(image, "PNG", transparency=colour))
    assert (pixels[:, :10] == 255).all()
    assert (pixels[:, 10:] < 100).all()


@pytest.mark.parametrize("mode", ["I;16", "I;16L", "I;16B", "I;16N", "I", "F"])
def test_16_bit_grey_is_scaled_and_not_clipped(mode: str) -> None:
    values = sixteen_bit()
    order = values.astype(">u2" if mode == "I;16B" else "<u2")
    image = (
        Image.frombytes(mode, (31, 23), order.tobytes())
        if mode.startswith("I;16")
        else Image.fromarray(values.astype({"I": np.int32, "F": np.float32}[mode]))
    )
    expected = np.rint(values / 257)
    np.testing.assert_array_equal(exact(image)[..., 1], expected)


@pytest.mark.parametrize("format", ["PNG", "TIFF", "PPM", "JPEG2000"])
def test_16_bit_grey_files_are_scaled_and_not_clipped(format: str) -> None:
    data = encoded(Image.fromarray(sixteen_bit()), format)
    np.testing.assert_array_equal(exact(data)[..., 0], np.rint(sixteen_bit() / 257))


def test_a_transparent_16_bit_grey_is_white() -> None:
    values = sixteen_bit()
    data = encoded(Image.fromarray(values), "PNG", transparency=int(values[3, 4]))
    pixels = exact(data)
    assert (pixels[3, 4] == 255).all()
    assert (pixels[3, 3] < 100).all()


@pytest.mark.parametrize(
    ("array", "white"),
    [
        (np.array([[0, 51, 255]], np.int32), 255),
        (np.array([[0, 51, 256]], np.int32), 65535),
        (np.array([[0, 51, 2**31 - 1]], np.int32), 2**31 - 1),
        (np.array([[-7, 51, 255]], np.int32), 255),
        (np.array([[0, 0.2, 1]], np.float32), 1),
        (np.array([[0, 0.2, 1.5]], np.float32), 255),
        (np.array([[0, 0.2, 3e38]], np.float32), 3e38),
        (np.array([[0, 0.2, -5]], np.float32), 1),
        (np.zeros((1, 3), np.float32), 1),
    ],
)
def test_white_of_wide_grey_is_the_least_usual_range_that_holds_it(array: np.ndarray, white: float) -> None:
    expected = np.rint(array.astype(np.float64) * 255 / white).clip(0, 255)
    pixels = load_pixels(Image.fromarray(array), height=1, width=3)
    np.testing.assert_array_equal(pixels[..., 2], expected)


def test_floats_that_are_not_numbers_are_black_and_infinite_ones_white() -> None:
    array = np.array([[np.nan, np.inf, -np.inf, 0.5, 1]], np.float32)
    pixels = load_pixels(Image.fromarray(array), height=1, width=5)
    np.testing.assert_array_equal(pixels[0, :, 0], [0, 255, 0, 128, 255])
