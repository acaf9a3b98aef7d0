"""Opened JPEG files -> smaller or quicker decoding. Owns both; knows nothing of other formats or of resizing."""

import io
from typing import IO

from PIL.JpegImagePlugin import JpegImageFile

try:
    import simplejpeg
except ImportError:
    simplejpeg = None

BLOCK = 1 << 20  # bytes that Pillow's decoder takes at once; its own 64 KiB cost 6% of a decode
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
    else:
        file.seek(0)
        data = file.read()
    try:
        pixels = simplejpeg.decode_jpeg(data, "RGB", min_height=height, min_width=width)  # (height, width, 3)
    except ValueError:  # whatever libjpeg warns of
        return None
    return pixels.tobytes() if pixels.shape == (height, width, 3) else None
