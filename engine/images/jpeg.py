"""Opened JPEG files -> smaller or quicker decoding. Owns both; knows nothing of other formats or of resizing."""

import io
import os
from typing import IO

from PIL.JpegImagePlugin import JpegImageFile

try:
    import simplejpeg
except ImportError:
    simplejpeg = None

BLOCK = 1 << 20  # bytes that Pillow's decoder takes at once; its own 64 KiB cost 6% of a decode
FEW_PIXELS = 1 << 20  # below, what is kept of several scans is not worth a look
MOST_BYTES = 100_000_000  # of a file that simplejpeg reads whole; Pillow reads it bit by bit
LEAST_SIDE = 16  # below, two scales give one size, and simplejpeg picks by size


def shrink(image: JpegImageFile, width: int, height: int) -> None:
    """Lets a file that is yet to be decoded come out at the least of 1/8, 1/4, 1/2, 1 that covers the asked size.

    Never smaller than asked on either side, so a resize that follows never enlarges what was shrunk here.
    """
    image.decodermaxblock = BLOCK
    image.draft(None, (width, height))


def decode(image: JpegImageFile, file: IO[bytes]) -> bytes | None:
    """Returns the RGB rows of an opened JPEG at the size that `shrink` gave it, those that Pillow would decode.

    None where simplejpeg is missing or the file is anything but whole, plain RGB or grey:
    Pillow's decoder then says what is wrong with it, or shows what can be shown.
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
    except ValueError:  # whatever libjpeg warns of
        return None
    return pixels.tobytes() if pixels.shape == (height, width, 3) else None


def length_read_whole(file: IO[bytes]) -> int:
    """Returns how many bytes `decode` reads into memory: none where they are there, or too many for it."""
    length = 0 if isinstance(file, io.BytesIO) else file.seek(0, 2)
    return length if length <= MOST_BYTES else 0


def kept_between_scans(image: JpegImageFile, file: IO[bytes]) -> int:
    """Returns how many bytes libjpeg keeps of a file in several scans, a progressive one, of its full size.

    Asked before `shrink`. Of one scan it keeps a few rows.
    """
    pixels = image.size[0] * image.size[1]
    if pixels < FEW_PIXELS or (not image.info.get("progressive") and _first_scan(file) == image.layers):
        return 0
    most_across, most_down = (max(layer[i] for layer in image.layer) for i in (1, 2))
    shares = (layer[1] * layer[2] / (most_across * most_down) for layer in image.layer)
    return int(2 * pixels * sum(shares))  # 16 bits a coefficient


def _first_scan(file: IO[bytes]) -> int:
    """Returns how many channels the first scan holds; 0 where there is none."""
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
