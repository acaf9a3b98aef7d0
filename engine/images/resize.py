"""RGB rows -> RGB pixels of another size, by SIMD. Owns the optional resizer; knows nothing of files."""

from functools import cache
from typing import Any

import numpy as np

FILTERS = {"box": "box", "bilinear": "bilinear", "bicubic": "catmull_rom", "lanczos": "lanczos3"}  # ours -> theirs
MOST_PIXELS = 16_000_000  # above, the copies that it takes cost more memory than the time is worth


def can_resize(size: tuple[int, int], resample: str) -> bool:
    """Says whether `resize` takes an image of this (width, height) by this filter here."""
    return resample in FILTERS and size[0] * size[1] <= MOST_PIXELS and resizer() is not None


def resize(rows: bytes, size: tuple[int, int], height: int, width: int, resample: str) -> np.ndarray:
    """Returns uint8 (height, width, 3), read-only, of the RGB rows of an image of `size` (width, height).

    The filters are Pillow's, in 16-bit arithmetic: nearly every value is within 1 level of Pillow's.
    """
    simd = resizer()
    rgb, filter_type = simd.PixelType.U8x3, simd.FilterType[FILTERS[resample]]
    options = simd.ResizeOptions(simd.ResizeAlg.convolution(filter_type))
    target = simd.ImageData(width, height, rgb)
    simd.Resizer().resize(simd.ImageData(*size, rgb, rows), target, options)
    return np.frombuffer(target.get_buffer(), np.uint8).reshape(height, width, 3)


@cache
def resizer() -> Any:
    """Returns the module cykooz_resizer, imported when it is first needed; None where it is missing."""
    try:
        import cykooz_resizer
    except ImportError:
        return None
    return cykooz_resizer
