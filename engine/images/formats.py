"""The supported formats: how each is recognised by its first bytes, and what opens it. Decodes no pixels."""

import importlib.util
import struct
from collections.abc import Collection, Iterable
from typing import IO

from PIL import Image, ImageFile

from engine.errors import OptionsError, RefusalError
from engine.images.jxl import JxlFile, is_jxl

SUFFIXES = {
    "JPEG": "jpg jpeg jpe jfif mpo",  # MPO, from phones and stereo cameras, is JPEG followed by more images
    "HEIF": "heic heif heics heifs hif",  # phones and cameras
    "JXL": "jxl",
    "AVIF": "avif avifs",
    "TIFF": "tif tiff",  # cameras and scanners
    "PNG": "png apng",  # from here on: formats that photographs are saved in
    "WEBP": "webp",
    "GIF": "gif",
    "BMP": "bmp",
    "JPEG2000": "jp2 j2k jpf jpx",
    "PPM": "ppm pgm pbm pnm",
    "PSD": "psd",
}  # the usual formats, by Pillow's names, and their suffixes; others are rare in photographs, but not in attacks
FORMATS = tuple(SUFFIXES)
RUN = ("EPS", "WMF")  # Pillow hands them to an interpreter
OURS = {"HEIF": "pi_heif", "JXL": "pillow_jxl"}  # read by these packages, without Pillow's list of formats
READ_WHOLE = ("HEIF", "JXL", "AVIF", "WEBP")  # their decoders need the whole file in memory to read its header
PREFIX = 64  # bytes; Pillow's own format checks need 16
AVIF_BRANDS = {b"avif", b"avis"}
HEIF_BRANDS = {b"mif1", b"msf1", b"mif2", b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"}

Opened = ImageFile.ImageFile | JxlFile


def check_formats(formats: Iterable[str]) -> tuple[str, ...]:
    """Returns names of formats as a tuple. Raises OptionsError if there are none, or if one cannot be read."""
    try:
        names = tuple(formats) if not isinstance(formats, str) else (formats,)
        are_usual = set(names) <= set(FORMATS)
    except TypeError:  # no names at all
        names, are_usual = (), False
    if not names:
        raise OptionsError("formats must be one or more names, such as 'JPEG'", name="formats", value=formats)
    if are_usual:
        return names
    Image.init()
    known = {*FORMATS, *Image.ID} - {*RUN}
    for name in names:
        if name not in known:
            why = (
                "is never read, since it may contain a program" if name in RUN else "is not a format that Pillow reads"
            )
            reason = f"{name!r} {why}; choose from {', '.join(sorted(known))}"
            raise OptionsError(reason, name="formats", value=names)
    return names


def image_suffixes(formats: Collection[str] = FORMATS) -> frozenset[str]:
    """Returns suffixes of image files, such as ".jpg": those of the usual formats and of the given ones.

    HEIC and JPEG XL are included even if no package can read them, so that users get an error that says so.
    """
    names = {f".{suffix}" for suffixes in SUFFIXES.values() for suffix in suffixes.split()}
    if rare := set(formats) - set(FORMATS):
        Image.init()
        names |= {name for name, its_format in Image.EXTENSION.items() if its_format in rare}
    return frozenset(names)


def open_image(file: IO[bytes], formats: Collection[str], most_bytes: int) -> Opened:
    """Reads the header, like Image.open but without its size check, which has another limit than ours.

    most_bytes: limit for formats that have to be read whole. Raises RefusalError.
    """
    prefix = file.read(PREFIX)
    if not isinstance(prefix, bytes):
        raise RefusalError("returns text, not bytes: open the file in binary mode")
    if not prefix:
        raise RefusalError("is empty")
    if (ours := _ours(prefix)) is not None:
        _check_named(ours, formats)
        return _opened(ours, file, most_bytes)
    tried = set(OURS)
    for load_plugins in (Image.preinit, Image.init):
        load_plugins()
        for name in [name for name in Image.ID if name in formats and name not in tried]:
            tried.add(name)
            factory, accept = Image.OPEN[name]
            try:
                if accept is not None and accept(prefix) is not True:  # it may read past the end of a tiny file
                    continue
                if name in READ_WHOLE:
                    _check_length(file, most_bytes)
                file.seek(0)
                return factory(file, "")
            except (SyntaxError, IndexError, TypeError, struct.error):
                continue  # not this format after all
    for name in Image.ID:
        if name not in tried and _begins_like(name, prefix):
            _check_named(name, formats)
    advice = "if other programs show it, save it as JPEG with one of them"
    raise RefusalError("is not an image of a known format, or its header is broken", advice)


def length_if_read_whole(file: IO[bytes]) -> int:
    """Returns the length of a file whose format has to be read whole, 0 for others."""
    file.seek(0)
    prefix = file.read(PREFIX)
    is_whole = is_jxl(prefix) or prefix[4:8] == b"ftyp" or prefix[8:12] == b"WEBP"  # READ_WHOLE
    return file.seek(0, 2) if is_whole else 0


def _ours(prefix: bytes) -> str | None:
    if is_jxl(prefix):
        return "JXL"
    if prefix[4:8] != b"ftyp":
        return None
    named = prefix[8 : min(int.from_bytes(prefix[:4]), PREFIX)]
    brands = {named[i : i + 4] for i in (0, *range(8, len(named) - 3, 4))}  # of the file, and compatible ones
    return "HEIF" if brands & HEIF_BRANDS and not brands & AVIF_BRANDS else None


def _opened(name: str, file: IO[bytes], most_bytes: int) -> Opened:
    if importlib.util.find_spec(OURS[name]) is None:
        shown = "HEIC/HEIF" if name == "HEIF" else "JPEG XL"
        reason = f"is a {shown} file, which needs the extra photos"
        raise RefusalError(reason, "run python -m pip install '.[photos]' in a checkout")
    _check_length(file, most_bytes)
    file.seek(0)
    try:
        if name == "JXL":
            return JxlFile(file)
        from pi_heif.as_plugin import HeifImageFile  # not registered, so that Pillow is unchanged for other code

        image: ImageFile.ImageFile = HeifImageFile(file, "")  # rotated by the container; EXIF's orientation is reset
        return image
    except (SyntaxError, IndexError, ValueError) as error:
        raise RefusalError("is not an image of a known format, or its header is broken") from error


def _check_length(file: IO[bytes], most_bytes: int) -> None:
    length = file.seek(0, 2)
    if length > most_bytes:
        reason = f"has {length:,} bytes, more than the limit of {most_bytes:,} for files that are read whole"
        raise RefusalError(reason, "raise max_pixels if you trust it")


def _check_named(name: str, formats: Collection[str]) -> None:
    """Raises RefusalError unless the format is among the given ones."""
    if name in formats:
        return
    if name in RUN:
        raise RefusalError(f"is a file in the format {name}, which is never read: it may contain a program")
    why = "is not among the formats to read" if name in FORMATS else "is not read by default"
    raise RefusalError(f"is a file in the format {name}, which {why}", "add it to formats if you trust it")


def _begins_like(name: str, prefix: bytes) -> bool:
    if name == "CUR" and prefix[4:6] == b"\0\0":  # without cursors: a TGA, which has no signature
        return False
    accept = Image.OPEN[name][1]
    try:
        return accept is not None and accept(prefix) is True
    except Exception:
        return False
