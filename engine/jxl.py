"""JPEG XL files -> pictures. Owns their header, which the decoder does not tell apart; knows no other format.

The package is asked for pixels alone. It decodes as it opens, so that the size is read here, before.
"""

from collections.abc import Iterator
from typing import IO

from PIL import ExifTags, Image

CONTAINER = b"\x00\x00\x00\x0cJXL \r\n\x87\n"
BARE = b"\xff\x0a"
RATIOS = {1: (1, 1), 2: (12, 10), 3: (4, 3), 4: (3, 2), 5: (16, 9), 6: (5, 4), 7: (2, 1)}
SIDE_BITS = (9, 13, 18, 30)
HEADER = 32  # bytes that hold size and orientation


class JxlFile:
    """An opened JPEG XL file: its size, as it stands upright, before anything is decoded."""

    format = "JXL"
    mode = "RGBA"  # at most

    def __init__(self, file: IO[bytes]) -> None:
        """Reads the file. Raises SyntaxError where the header is broken, ImportError where the package is missing."""
        import pillow_jxl  # registers itself with Pillow, for all of the process: nothing here needs that

        self._decoder = pillow_jxl.Decoder(num_threads=0)  # readers are threads already
        self.content = file.read()
        bits = _Bits(_codestream(self.content))
        height = 8 * (bits.take(5) + 1) if (eighths := bits.take(1)) else bits.side()
        ratio = bits.take(3)
        if ratio:
            width = height * RATIOS[ratio][0] // RATIOS[ratio][1]
        else:
            width = 8 * (bits.take(5) + 1) if eighths else bits.side()
        has_orientation = not bits.take(1) and bits.take(1)
        self.orientation = bits.take(3) + 1 if has_orientation else 1
        self.size = (height, width) if self.orientation >= 5 else (width, height)

    def decode(self) -> Image.Image | bytes:
        """Returns the first frame, or the JPEG file that this one was made of, which then has the same pixels."""
        is_jpeg, info, data, profile, boxes = self._decoder(self.content)
        if is_jpeg:
            return bytes(data)
        image = Image.frombytes("F" if info.mode == "F;16" else info.mode, (info.width, info.height), data)
        if profile:
            image.info["icc_profile"] = bytes(profile)
        if self.orientation == 1:
            self._turn_by_exif(image, boxes)
        return image

    def _turn_by_exif(self, image: Image.Image, boxes: list[object]) -> None:
        """Notes the orientation in EXIF where the codestream, which goes before it, says nothing.

        Decoders follow the codestream, and writers that know the format note it there as well; those that only
        copy EXIF, as Pillow's plug-in does, mean EXIF.
        """
        for box in boxes:
            if getattr(box, "box_type", None) == b"Exif":
                exif = Image.Exif()
                exif.load(bytes(getattr(box, "data", b""))[4:])  # after the offset of its header
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

    def side(self) -> int:
        return self.take(SIDE_BITS[self.take(2)]) + 1


def _codestream(content: bytes) -> bytes:
    """Returns the beginning of the codestream, which a container may hold in parts."""
    if not content.startswith(CONTAINER):
        return content[:HEADER]
    begun = b""
    for kind, place, length in _boxes(content):
        if kind == b"jxlc":
            return content[place : place + min(length, HEADER)]
        if kind == b"jxlp" and len(begun) < HEADER:  # four bytes of a number first
            begun += content[place + 4 : place + min(length, 4 + HEADER)]
    return begun


def _boxes(content: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yields type, place and length of what each box of a container holds."""
    place = 0
    while place + 8 <= len(content):
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


def is_jxl(prefix: bytes) -> bool:
    """Says whether a file begins like JPEG XL."""
    return prefix.startswith((BARE, CONTAINER))
