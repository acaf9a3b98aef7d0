"""Resizes RGB pixels with the optional package cykooz-resizer, which uses SIMD. Knows nothing of files."""

from functools import cache
from typing import Any

import numpy as np

from engine.images.fit import Box, Size

FILTERS = {
    "box": "box",
    "bilinear": "bilinear",
    "bicubic": "catmull_rom",
    "lanczos": "lanczos3",
}  # our name -> the package's
MOST_PIXELS = 16_000_000  # for larger images the copies that it needs take too much memory


def can_resize(size: Size, resample: str) -> bool:
    """Returns whether `resize` can be used for an image of this (width, height) with this filter."""
    return resample in FILTERS and size[0] * size[1] <= MOST_PIXELS and resizer() is not None


def resize(rows: bytes, size: Size, target: Size, resample: str, box: Box | None = None) -> np.ndarray:
    """Resizes an image, given as RGB rows, to uint8 (height, width, 3), which is read-only.

    box: the part to show, None for all. As in Pillow, the filter also reads pixels around it. It is computed with 16
    bits: nearly every value is within 1 level of Pillow's.
    """
    simd = resizer()
    rgb, filter_type = simd.PixelType.U8x3, simd.FilterType[FILTERS[resample]]
    options = simd.ResizeOptions(simd.ResizeAlg.convolution(filter_type))
    if box is not None:
        left, top, right, bottom = box
        options.crop_box = simd.CropBox(left, top, right - left, bottom - top)
    pixels = simd.ImageData(*target, rgb)
    simd.Resizer().resize(simd.ImageData(*size, rgb, rows), pixels, options)
    return np.frombuffer(pixels.get_buffer(), np.uint8).reshape(target[1], target[0], 3)


@cache
def resizer() -> Any:
    """Returns the module cykooz_resizer, imported on first use; None if it is not installed."""
    try:
        import cykooz_resizer
    except ImportError:
        return None
    return cykooz_resizer
