"""Faster decoding of JPEG files, also at reduced size. Knows nothing of other formats or of resizing."""

import io
import os
from typing import IO

from PIL.JpegImagePlugin import JpegImageFile

try:
    import simplejpeg
except ImportError:
    simplejpeg = None

BLOCK = 1 << 20  # bytes that Pillow's decoder reads at once; its default of 64 KiB costs 6% of a decode
FEW_PIXELS = 1 << 20  # below this, memory for several scans does not matter
MOST_BYTES = 100_000_000  # largest file that simplejpeg reads whole; Pillow reads incrementally
LEAST_SIDE = 16  # below this, two scales give the same size, and simplejpeg selects by size


def shrink(image: JpegImageFile, width: int, height: int) -> None:
    """Sets the decoding scale to the smallest of 1/8, 1/4, 1/2, 1 that covers the requested size.

    Neither side gets smaller than requested, so a later resize never enlarges the result.
    """
    image.decodermaxblock = BLOCK
    image.draft(None, (width, height))


def decode(image: JpegImageFile, file: IO[bytes]) -> bytes | None:
    """Returns the RGB rows of an opened JPEG at the size set by `shrink`, equal to Pillow's.

    Returns None if simplejpeg is missing or the file is not complete, plain RGB or grey: Pillow's decoder then reports
    the problem, or decodes what it can.
    """
    if simplejpeg is None or type(image) is not JpegImageFile or image.mode not in ("RGB", "L"):
        return None
    width, height = image.size
    if min(width, height) < LEAST_SIDE:
        return None
    if isinstance(file, io.BytesIO):
        data = file.getvalue()  # no copy
    elif not length_read_whole(file):
        return None
    else:
        file.seek(0)
        data = file.read()
    try:
        pixels = simplejpeg.decode_jpeg(data, "RGB", min_height=height, min_width=width)  # (height, width, 3)
    except ValueError:  # any warning of libjpeg
        return None
    return pixels.tobytes() if pixels.shape == (height, width, 3) else None


def length_read_whole(file: IO[bytes]) -> int:
    """Returns how many bytes `decode` reads into memory: 0 if they are there already, or too many."""
    length = 0 if isinstance(file, io.BytesIO) else file.seek(0, 2)
    return length if length <= MOST_BYTES else 0


def kept_between_scans(image: JpegImageFile, file: IO[bytes]) -> int:
    """Returns how many bytes libjpeg needs for a file with several scans (progressive) at full size.

    Call it before `shrink`. With one scan, libjpeg keeps only a few rows.
    """
    pixels = image.size[0] * image.size[1]
    if pixels < FEW_PIXELS or (not image.info.get("progressive") and _first_scan(file) == image.layers):
        return 0
    most_across, most_down = (max(layer[i] for layer in image.layer) for i in (1, 2))
    shares = (layer[1] * layer[2] / (most_across * most_down) for layer in image.layer)
    return int(2 * pixels * sum(shares))  # 16 bits a coefficient


def _first_scan(file: IO[bytes]) -> int:
    """Returns the number of channels in the first scan; 0 if there is none."""
    file.seek(2)
    while (marker := file.read(2))[:1] == b"\xff":
        if marker == b"\xff\xff":  # markers may be padded
            file.seek(-1, os.SEEK_CUR)
            continue
        length = int.from_bytes(file.read(2))
        if marker == b"\xff\xda":
            return int.from_bytes(file.read(1))
        file.seek(max(0, length - 2), os.SEEK_CUR)
    return 0
