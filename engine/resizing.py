"""RGB rows -> RGB pixels of another size, by SIMD. Owns the optional resizer; knows nothing of files."""

import numpy as np

try:
    import cykooz_resizer
except ImportError:
    cykooz_resizer = None

FILTERS = {"box": "box", "bilinear": "bilinear", "bicubic": "catmull_rom", "lanczos": "lanczos3"}  # ours -> theirs
MOST_PIXELS = 16_000_000  # above, the copies that it takes cost more memory than the time is worth


def can_resize(size: tuple[int, int], resample: str) -> bool:
    """Says whether `resize` takes an image of this (width, height) by this filter here."""
    return cykooz_resizer is not None and resample in FILTERS and size[0] * size[1] <= MOST_PIXELS


def resize(rows: bytes, size: tuple[int, int], height: int, width: int, resample: str) -> np.ndarray:
    """Returns uint8 (height, width, 3), read-only, of the RGB rows of an image of `size` (width, height).

    The filters are Pillow's, in 16-bit arithmetic: nearly every value is within 1 level of Pillow's.
    """
    rgb = cykooz_resizer.PixelType.U8x3
    filter_type = cykooz_resizer.FilterType[FILTERS[resample]]
    options = cykooz_resizer.ResizeOptions(cykooz_resizer.ResizeAlg.convolution(filter_type))
    target = cykooz_resizer.ImageData(width, height, rgb)
    cykooz_resizer.Resizer().resize(cykooz_resizer.ImageData(*size, rgb, rows), target, options)
    return np.frombuffer(target.get_buffer(), np.uint8).reshape(height, width, 3)
