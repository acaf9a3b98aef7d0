"""Pictures of the tests, as files of any format, and what is read of them."""

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from engine.errors import ImageError
from engine.images.formats import FORMATS as USUAL
from engine.images.load import load_pixels

FORMATS = ("JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "TGA", "JPEG2000", "AVIF", "PSD", "QOI")
STORED = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}  # EXIF orientation -> how the scene is then stored


def photograph(width: int = 31, height: int = 23) -> Image.Image:
    """A drawn picture without any symmetry."""
    y, x = np.mgrid[:height, :width]
    red, green, blue = x * 255 // (width - 1), y * 255 // (height - 1), (x * y) % 256
    return Image.fromarray(np.stack([red, green, blue], axis=-1).astype(np.uint8))


def sixteen_bit() -> np.ndarray:
    return np.linspace(0, 65535, 23 * 31).astype(np.uint16).reshape(23, 31)


def encoded(image: Image.Image, format: str = "JPEG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def exif(orientation: int) -> bytes:
    block = Image.Exif()
    block[274] = orientation
    return block.tobytes()


def exact(source: Any, **options: Any) -> np.ndarray:
    """The pixels of a 31 x 23 image at their own size, so that nothing is resampled; rare formats too."""
    return load_pixels(source, **{"height": 23, "width": 31, "formats": (*USUAL, "TGA", "QOI"), **options})


def same(source: Any, expected: Image.Image) -> None:
    np.testing.assert_array_equal(exact(source), np.asarray(expected.convert("RGB")))


def near(data: bytes, image: Image.Image, levels: float = 2.0) -> None:
    """Asserts that a file shows an image, lossless but for its colour space."""
    width, height = image.size
    difference = load_pixels(data, height=height, width=width).astype(int) - np.asarray(image.convert("RGB"))
    assert np.abs(difference).mean() < levels


def reason(source: Any, **options: Any) -> str:
    with pytest.raises(ImageError) as caught:
        load_pixels(source, height=8, width=8, **options)
    assert "\n" not in caught.value.explanation
    return caught.value.explanation


def heif(image: Image.Image, **options: Any) -> bytes:
    import pillow_heif

    file = io.BytesIO()
    pillow_heif.from_pillow(image).save(file, quality=-1, chroma=444, **options)
    return file.getvalue()
