"""RGB rows -> RGB pixels of another size, by SIMD. Owns the optional resizer; knows nothing of files."""

from functools import cache
from typing import Any

import numpy as np

from engine.images.fit import Box, Size

FILTERS = {"box": "box", "bilinear": "bilinear", "bicubic": "catmull_rom", "lanczos": "lanczos3"}  # ours -> theirs
MOST_PIXELS = 16_000_000  # above, the copies that it takes cost more memory than the time is worth


def can_resize(size: Size, resample: str) -> bool:
    """Says whether `resize` takes an image of this (width, height) by this filter here."""
    return resample in FILTERS and size[0] * size[1] <= MOST_PIXELS and resizer() is not None


def resize(rows: bytes, size: Size, target: Size, resample: str, box: Box | None = None) -> np.ndarray:
    """Returns uint8 (height, width, 3) of the target's size, read-only, of the RGB rows of an image of `size`.

    box: the part that is shown, None for all. As in Pillow, a filter reads pixels around the box too.
    The filters are Pillow's, in 16-bit arithmetic: nearly every value is within 1 level of Pillow's.
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
    """Returns the module cykooz_resizer, imported when it is first needed; None where it is missing."""
    try:
        import cykooz_resizer
    except ImportError:
        return None
    return cykooz_resizer
