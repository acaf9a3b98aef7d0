"""The memory that decoding takes: how much for an image, and how much at once in this process. Decodes nothing.

Files that are read whole are added by whoever opens them; bytes that callers hand over are theirs, and not counted.
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
"""Bytes of decoding that nobody counts, about those of two megapixels: photographs of common sizes wait for no lock."""


class Budget:
    """Bytes that are at hand for all who decode; whoever finds too few waits, first come, first served.

    More than all of it is given too, to one who has it alone.
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
        """Waits for so many bytes and holds them. A thread that holds some must not ask for more."""
        if count <= SMALL:
            yield
            return
        ticket = object()
        try:
            self._take(count, ticket)
            yield
        finally:  # wherever it was interrupted
            with self._changed:
                self._held.pop(ticket, None)
                self._leave(ticket)

    def _take(self, count: int, ticket: object) -> None:
        with self._changed:
            self._waiting.append(ticket)
            self._changed.wait_for(lambda: self._waiting[0] is ticket and self._has(count))
            self._held[ticket] = count
            self._leave(ticket)

    def _leave(self, ticket: object) -> None:
        """Lets those behind it pass."""
        if ticket in self._waiting:
            self._waiting.remove(ticket)
        self._changed.notify_all()

    def _has(self, count: int) -> bool:
        return not self._held or sum(self._held.values()) + count <= self.size


DECODING = Budget(400_000_000)
"""That of this process: decoders of all captioners draw on the same memory."""
if hasattr(os, "register_at_fork"):  # threads that held or awaited some are not in the child
    os.register_at_fork(after_in_child=DECODING._reset)


COPIES = {"WEBP": 13, "AVIF": 8, "HEIF": 8, "JXL": 8, "JPEG2000": 18, "PSD": 4, "GIF": 2, "BMP": 4}
"""Bytes a pixel that decoders of a format hold besides the picture, rounded up from what 24 megapixels took; the
decoders of JPEG, PNG and PPM hold a few rows. TIFF's holds a strip, which may be the picture."""
UNKNOWN = 16  # bytes a pixel, for formats that were not measured
BYTES = {"1": 1, "L": 1, "P": 1, "I;16": 2, "I;16B": 2, "I;16L": 2, "I;16N": 2}  # of a pixel; of other modes 4
EXIF = {"exif", "Raw profile type exif"}  # what Pillow calls it once it has read it
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
    # Pillow would decode a PNG to look for EXIF data behind its pixels
    tells = isinstance(image, TiffImageFile) or not EXIF.isdisjoint(image.info)
    is_lying = tells and isinstance(image, Image.Image) and orientation_of(image) in UPRIGHT
    if image.mode != "RGB" or is_lying or image.info.get("transparency") is not None:
        each += 4  # the picture in RGB and upright
    if quick and pixels <= MOST_PIXELS:
        each += 10  # rows in one piece, and the resizer's own
    return pixels * each + (4 * width * max(image.size) if width > min(image.size) else 0)  # wide, before it is short
