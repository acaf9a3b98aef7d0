"""JPEG XL files. Parses their header, which the decoder does not expose; knows no other format.

The package is only used for pixels. It decodes when it opens a file, so the size is read here first.
"""

from collections.abc import Iterator
from contextlib import suppress
from typing import IO, Any

from PIL import ExifTags, Image

from engine.errors import RefusalError

CONTAINER = b"\x00\x00\x00\x0cJXL \r\n\x87\n"
BARE = b"\xff\x0a"
TIFF = (b"II*\0", b"MM\0*")  # what EXIF begins with
RATIOS = {1: (1, 1), 2: (12, 10), 3: (4, 3), 4: (3, 2), 5: (16, 9), 6: (5, 4), 7: (2, 1)}
Ranges = tuple[tuple[int, int], ...]
"""Smallest number, and bits of the number added to it."""
EIGHTHS: Ranges = ((1, 5),)
ONES: Ranges = ((1, 9), (1, 13), (1, 18), (1, 30))
PREVIEW_EIGHTHS: Ranges = ((16, 0), (32, 0), (1, 5), (33, 9))
PREVIEW_ONES: Ranges = ((1, 6), (65, 8), (321, 10), (1345, 12))
HEADER = 48  # bytes with everything that is read here
MOST_BOXES = 10_000  # most boxes of a container; writers make one per 64 kB or more


class JxlFile:
    """An opened JPEG XL file: its upright size, before anything is decoded."""

    format = "JXL"
    mode = "RGBA"  # at most

    def __init__(self, file: IO[bytes]) -> None:
        """Reads the file. Raises SyntaxError for a broken header, ImportError if the package is missing."""
        import pillow_jxl  # registers itself with Pillow for the whole process; not needed here

        self.info: dict[str, object] = {}  # metadata known before decoding
        self._decoder = pillow_jxl.Decoder(num_threads=0)  # the readers are threads already
        self.content = file.read()
        bits = _Bits(_codestream(self.content))
        width, height = bits.size()
        has_more = not bits.take(1) and bits.take(1)
        self.orientation = bits.take(3) + 1 if has_more else 1
        self.size = (height, width) if self.orientation >= 5 else (width, height)
        if has_more and bits.is_animated():
            raise RefusalError(
                "is an animated JPEG XL file, and only its last frame can be decoded: save one frame as a file"
            )

    def decode(self) -> Image.Image | bytes:
        """Returns the first frame, or the JPEG file that this one was made from, which has the same pixels."""
        is_jpeg, info, data, profile, boxes = self._decoder(self.content)
        if is_jpeg:
            return bytes(data)
        if (info.width, info.height) != self.size:  # which was what it may take
            raise SyntaxError("the image has another size than the header says")
        image = Image.frombytes("F" if info.mode == "F;16" else info.mode, (info.width, info.height), data)
        if profile:
            image.info["icc_profile"] = bytes(profile)
        if self.orientation == 1:
            self._turn_by_exif(image, boxes)
        return image

    def _turn_by_exif(self, image: Image.Image, boxes: list[Any]) -> None:
        """Records the orientation in EXIF if the codestream, which has priority, has none.

        Decoders follow the codestream, and good writers record it there too; writers that only copy EXIF, such as
        Pillow's plug-in, mean EXIF.
        """
        for box in boxes:
            if box.box_type == b"Exif":
                data = bytes(box.data)
                exif = Image.Exif()
                with suppress(Exception):  # broken EXIF data is no reason to refuse a good image
                    exif.load(data[4:] if data[4:8] in TIFF else data)  # after the offset of its header
                    image.getexif()[ExifTags.Base.Orientation] = exif.get(ExifTags.Base.Orientation, 1)


class _Bits:
    """Bits of a codestream, the lowest of each byte first."""

    def __init__(self, data: bytes) -> None:
        if not data.startswith(BARE) or len(data) < 4:
            raise SyntaxError("no JPEG XL codestream")
        self._left = int.from_bytes(data[2:HEADER].ljust(HEADER, b"\0"), "little")

    def take(self, count: int) -> int:
        value = self._left & ((1 << count) - 1)
        self._left >>= count
        return value

    def size(self, eighths: Ranges = EIGHTHS, ones: Ranges = ONES) -> tuple[int, int]:
        """Reads width and height, stored as multiples of 8 or of 1."""
        unit, ranges = (8, eighths) if self.take(1) else (1, ones)
        height = self.number(ranges)
        ratio = self.take(3)
        if ratio:
            across, down = RATIOS[ratio]
            return height * unit * across // down, height * unit
        return self.number(ranges) * unit, height * unit

    def number(self, ranges: Ranges) -> int:
        """Reads a number whose range is given by two bits; none if there is one range."""
        least, bits = ranges[self.take(2) if len(ranges) > 1 else 0]
        return least + self.take(bits)

    def is_animated(self) -> bool:
        """Skips the fields between orientation and animation."""
        if self.take(1):
            self.size()  # that it is meant to be shown in
        if self.take(1):
            self.size(PREVIEW_EIGHTHS, PREVIEW_ONES)
        return bool(self.take(1))


def _codestream(content: bytes) -> bytes:
    """Returns the beginning of the codestream, which a container may split into parts.

    Raises SyntaxError if there is more than one, because decoders differ in which they use.
    """
    if not content.startswith(CONTAINER):
        return content[:HEADER]
    whole: bytes | None = None
    parts: list[bytes] = []
    for kind, place, length in _boxes(content):
        if (kind in (b"jxlc", b"jxlp") and whole is not None) or (kind == b"jxlc" and parts):
            raise SyntaxError("more than one codestream")
        if kind == b"jxlc":
            whole = content[place : place + min(length, HEADER)]
        elif kind == b"jxlp":  # four bytes of a number first
            parts.append(content[place + 4 : place + min(length, 4 + HEADER)])
    return b"".join(parts)[:HEADER] if whole is None else whole


def _boxes(content: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yields type, position and length of the content of each box in a container. Raises SyntaxError for too many."""
    place = 0
    for _ in range(MOST_BOXES):
        if place + 8 > len(content):
            return
        length, kind = int.from_bytes(content[place : place + 4]), content[place + 4 : place + 8]
        header = 8
        if length == 1:
            length, header = int.from_bytes(content[place + 8 : place + 16]), 16
        if length == 0:
            length = len(content) - place
        if length < header:
            return
        yield kind, place + header, length - header
        place += length
    raise SyntaxError(f"more than {MOST_BOXES:,} boxes")


def is_jxl(prefix: bytes) -> bool:
    """Returns whether a file begins like JPEG XL."""
    return prefix.startswith((BARE, CONTAINER))
