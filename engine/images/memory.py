"""Memory for decoding: how much an image needs, and a limit for this process. Decodes nothing.

The code that opens a file adds its size if it is read whole; bytes passed by callers are not counted.
"""

import os
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from PIL import Image
from PIL.ImageFile import ImageFile
from PIL.TiffImagePlugin import BITSPERSAMPLE, TiffImageFile

from engine.images.jxl import JxlFile
from engine.images.resize import MOST_PIXELS
from engine.images.upright import UPRIGHT, orientation_of

SMALL = 8_000_000
"""Bytes that are not counted, about two megapixels, so that photographs of common sizes never wait for a lock."""


class Budget:
    """A pool of bytes shared by all decoders; a thread that needs more than are free waits, first come, first served.

    A request for more than the whole pool is granted when nothing else is in use.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._reset()

    def _reset(self) -> None:
        self._changed = threading.Condition()
        self._waiting: deque[object] = deque()
        self._held: dict[object, int] = {}

    @contextmanager
    def hold(self, count: int) -> Iterator[None]:
        """Waits for this many bytes and holds them. A thread that holds some must not ask for more."""
        if count <= SMALL:
            yield
            return
        ticket = object()
        try:
            self._take(count, ticket)
            yield
        finally:  # wherever it is interrupted
            with self._changed:
                self._held.pop(ticket, None)
                self._leave(ticket)

    def _take(self, count: int, ticket: object) -> None:
        with self._changed:
            self._waiting.append(ticket)
            self._changed.wait_for(
                lambda: self._waiting[0] is ticket and (not self._held or sum(self._held.values()) + count <= self.size)
            )
            self._held[ticket] = count
            self._leave(ticket)

    def _leave(self, ticket: object) -> None:
        """Lets the next ones continue."""
        if ticket in self._waiting:
            self._waiting.remove(ticket)
        self._changed.notify_all()


DECODING = Budget(400_000_000)
"""The pool of this process, shared by the decoders of all captioners."""
if hasattr(os, "register_at_fork"):  # threads that hold or await bytes do not exist in the child
    os.register_at_fork(after_in_child=DECODING._reset)


COPIES = {"WEBP": 13, "AVIF": 8, "HEIF": 8, "JXL": 8, "JPEG2000": 18, "PSD": 4, "GIF": 2, "BMP": 4}
"""Bytes per pixel that a format's decoder needs besides the image, rounded up from measurements with 24 megapixels. The
decoders of JPEG, PNG and PPM need a few rows; TIFF's needs a strip, which may be the whole image."""
UNKNOWN = 16  # bytes per pixel for formats that were not measured
BYTES = {"1": 1, "L": 1, "P": 1, "I;16": 2, "I;16B": 2, "I;16L": 2, "I;16N": 2}  # per pixel; 4 for other modes
EXIF = {"exif", "Raw profile type exif"}  # Pillow's names for it
ROWS_ONLY = ("JPEG", "MPO", "PNG", "PPM")


def bytes_to_decode(image: Image.Image | JxlFile, width: int, *, quick: bool) -> int:
    """Returns about how many bytes it takes to decode an opened image, and to make it `width` wide.

    width: 0 where it keeps its aspect ratio: then nothing on the way is larger than it was or will be.
    """
    pixels = image.size[0] * image.size[1]
    each = BYTES.get(image.mode, 4)
    if isinstance(image, TiffImageFile):
        bits = image.tag_v2.get(BITSPERSAMPLE, 8)
        each += -(-sum(bits) // 8) if isinstance(bits, tuple) else 4
    elif isinstance(image, ImageFile | JxlFile) and image.format not in ROWS_ONLY:
        each += COPIES.get(image.format or "", UNKNOWN)
    # Pillow would decode a PNG to look for EXIF data after its pixels
    tells = isinstance(image, TiffImageFile) or not EXIF.isdisjoint(image.info)
    is_lying = tells and isinstance(image, Image.Image) and orientation_of(image) in UPRIGHT
    if image.mode != "RGB" or is_lying or image.info.get("transparency") is not None:
        each += 4  # the image in RGB and upright
    if quick and pixels <= MOST_PIXELS:
        each += 10  # contiguous rows, and the resizer's buffers
    return pixels * each + (4 * width * max(image.size) if width > min(image.size) else 0)  # wide, before it is short
