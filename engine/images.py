"""Any image input -> uint8 pixels of the asked size. Owns decoding; knows nothing of models, batches or captions."""

import io
import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import IO, BinaryIO

import numpy as np
from PIL import ExifTags, Image, ImageFile, TiffImagePlugin
from PIL.JpegImagePlugin import JpegImageFile

from engine import jpeg, resizing
from engine.errors import ImageError, OptionsError

MAX_PIXELS = 178_000_000
ImageInput = str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO | Image.Image | np.ndarray

RESAMPLES = {name.lower(): Image.Resampling[name] for name in ("NEAREST", "BOX", "BILINEAR", "BICUBIC", "LANCZOS")}
REFUSED_FORMATS = ("EPS", "WMF", "ICO", "ICNS")
"""Nothing to do with strangers' files: Pillow hands the first two to an interpreter, and unpacks the others, however
large they are, before it tells their size."""
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # EXIF orientation -> what turns it upright


def load_pixels(
    source: ImageInput,
    *,
    height: int,
    width: int,
    resample: str = "bicubic",
    max_pixels: int = MAX_PIXELS,
    out: np.ndarray | None = None,
    quick: bool = False,
) -> np.ndarray:
    """Returns the whole image, upright and squashed to the asked size: uint8 RGB (height, width, 3).

    A file object is read from where it stands to its end and stays open; a PIL image gives the frame it stands at.
    Alpha is laid over white, and more than 8 bits a channel are scaled to 8. `max_pixels` holds for the image as
    stored and is checked before its pixels are decoded. A JPEG file at least twice as large as asked on both sides
    is shrunk by 2, 4 or 8 while it is decoded, never below the asked size.
    out: a uint8 array of that shape to be filled and returned, as a row of a batch; else a fresh, contiguous one.
    quick: resizes with the packages of the extra "fast" where they are installed, nearly all values within 1 level
    of those without. Raises ImageError for everything wrong with the input; `out` may then hold anything.
    """
    if resample not in RESAMPLES:
        raise OptionsError(f"resample must be one of {', '.join(RESAMPLES)}, not {resample!r}")
    if out is not None and (out.shape != (height, width, 3) or out.dtype != np.uint8 or not out.flags.writeable):
        raise OptionsError(f"out must be a writable uint8 array {(height, width, 3)}, not {describe(out)}")
    aim = _Aim(height, width, resample, max_pixels, quick)
    try:
        if isinstance(source, str | os.PathLike):
            with Path(os.fsdecode(source)).open("rb") as file:
                pixels = _from_file(file if file.seekable() else io.BytesIO(file.read()), aim)
        elif isinstance(source, Image.Image):
            pixels = _fitted(source, aim)
        elif isinstance(source, np.ndarray):
            image = _from_array(source, aim.max_pixels)
            pixels = source if source.shape == (height, width, 3) else _fitted(image, aim)  # a resize of nothing
        elif isinstance(source, bytes | bytearray | memoryview):
            pixels = _from_file(io.BytesIO(bytes(source)), aim)
        elif hasattr(source, "read"):
            pixels = _from_file(io.BytesIO(source.read()), aim)
        else:
            raise _RefusedError("is not an image: give a path, bytes, a binary file, a PIL image or a numpy array")
        if out is None:
            return pixels.copy()
        out[:] = pixels
        return out
    except Exception as error:  # on hostile input Pillow raises nearly anything
        advice = error.advice if isinstance(error, _RefusedError) else ""
        raise ImageError(_reason(error), source=describe(source), advice=advice) from error


def describe(source: object) -> str:
    """Returns a short name of an input for messages: its path, or what it is and how large. Never raises."""
    try:
        return _name(source)
    except Exception:  # what a path or a file object of somebody else's may do
        return f"{type(source).__name__} object"


def _name(source: object) -> str:
    if isinstance(source, str | os.PathLike):
        path = os.fsdecode(source)
        return path if path.isprintable() and path else ascii(path)
    if isinstance(source, bytes | bytearray):
        return f"{len(source):,} bytes"
    if isinstance(source, memoryview):
        return f"{source.nbytes:,} bytes"
    if isinstance(source, np.ndarray):
        return f"array {source.shape} {source.dtype}"
    if isinstance(source, Image.Image):
        return f"PIL image {source.width} x {source.height} {source.mode}"
    name = getattr(source, "name", None)
    return f"file {_name(name)}" if isinstance(name, str) else f"{type(source).__name__} object"


@dataclass(frozen=True, slots=True)
class _Aim:
    """What the pixels shall be."""

    height: int
    width: int
    resample: str
    max_pixels: int
    quick: bool


def _from_file(file: IO[bytes], aim: _Aim) -> np.ndarray:
    image = _open(file)
    if isinstance(image, JpegImageFile):
        _check_size(image.size, aim.max_pixels)
        orientation = _orientation(image)
        if aim.resample != "nearest":  # which takes single pixels: those of a shrunk image are others
            jpeg.shrink(image, *((aim.height, aim.width) if 5 <= orientation <= 8 else (aim.width, aim.height)))
        if aim.quick and orientation not in UPRIGHT and resizing.can_resize(image.size, aim.resample):
            rows = jpeg.decode(image, file)
            if rows is not None:
                return resizing.resize(rows, image.size, aim.height, aim.width, aim.resample)
    return _fitted(image, aim)


def _fitted(image: Image.Image, aim: _Aim) -> np.ndarray:
    image = _upright_rgb(image, aim.max_pixels)
    if aim.quick and resizing.can_resize(image.size, aim.resample):
        return resizing.resize(image.tobytes(), image.size, aim.height, aim.width, aim.resample)
    return np.asarray(image.resize((aim.width, aim.height), RESAMPLES[aim.resample]))


class _RefusedError(Exception):
    """A reason of ours for refusing an image, already in plain words, and advice to programs."""

    def __init__(self, reason: str, advice: str = "") -> None:
        super().__init__(reason)
        self.advice = advice


def _reason(error: Exception) -> str:
    match error:
        case _RefusedError():
            return str(error)
        case FileNotFoundError() | NotADirectoryError():
            return "there is no such file"
        case IsADirectoryError():
            return "is a folder, not an image file"
        case PermissionError():
            return "may not be read: permission denied"
        case MemoryError():
            return "cannot be decoded: it needs more memory than there is"
        case ValueError() if "MAX_TEXT_" in str(error):  # Pillow's advice to programmers
            return "cannot be decoded: its texts or its colour profile unpack to too much; save it without them"
        case OSError(strerror=str(why)) if error.errno is not None:
            return f"cannot be read: {why}"
    return f"cannot be decoded: {' '.join(str(error).split()) or type(error).__name__}"


def _open(file: IO[bytes]) -> Image.Image:
    """Reads the header, as Image.open does but for its own size check, which warns below our limit and ignores it."""
    prefix = file.read(16)
    if not isinstance(prefix, bytes):
        raise _RefusedError("gives text, not bytes: open the file in binary mode")
    if not prefix:
        raise _RefusedError("is empty")
    tried = set(REFUSED_FORMATS)
    for load_plugins in (Image.preinit, Image.init):
        load_plugins()
        for name in [name for name in Image.ID if name not in tried]:
            tried.add(name)
            factory, accept = Image.OPEN[name]
            try:
                if accept is not None and accept(prefix) is not True:  # it may read beyond a file of a few bytes
                    continue
                file.seek(0)
                return factory(file, "")
            except (SyntaxError, IndexError, TypeError, struct.error):
                continue  # not of this format after all
    raise _RefusedError("is not an image of a known format, or its header is broken")


def _from_array(array: np.ndarray, max_pixels: int) -> Image.Image:
    is_image = array.ndim == 2 or (array.ndim == 3 and array.shape[2] == 3)
    if array.dtype != np.uint8 or not is_image or array.size == 0:
        raise _RefusedError("must be uint8 of shape (height, width, 3) or (height, width) and not empty")
    _check_size((array.shape[1], array.shape[0]), max_pixels)
    return Image.fromarray(array)


def _check_size(size: tuple[int, int], max_pixels: int) -> None:
    width, height = size
    if width * height == 0:
        raise _RefusedError(f"has no pixels ({width} x {height})")
    if width * height > max_pixels:
        pixels = f"{width * height:,} pixels ({width:,} x {height:,})"
        raise _RefusedError(f"has {pixels}, more than the limit of {max_pixels:,}", "raise max_pixels if you trust it")


def _upright_rgb(image: Image.Image, max_pixels: int) -> Image.Image:
    """Decodes; returns an RGB image, which is the given one where nothing had to be changed."""
    _check_size(image.size, max_pixels)
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        _skip_second_size_check(image)
    try:
        image.load()
    finally:
        vars(image).pop("load_prepare", None)  # a caller's image goes on as it was
    _check_size(image.size, max_pixels)  # icons know their true size only now
    if (orientation := _orientation(image)) in UPRIGHT:
        image = image.transpose(UPRIGHT[orientation])
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        image = _eight_bit(image)
    if image.has_transparency_data:
        above = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", above.size, "white"), above)
    return image if image.mode == "RGB" else image.convert("RGB")


def _skip_second_size_check(image: TiffImagePlugin.TiffImageFile) -> None:
    """Gives this one TIFF Pillow's plain load_prepare: the TIFF reader's own warns of sizes below our limit."""
    stored_size = getattr(image, "_tile_size", image.size)  # before its orientation is applied

    def load_prepare() -> None:
        if image._im is None:
            image.im = Image.new(image.mode, stored_size).im
        ImageFile.ImageFile.load_prepare(image)

    image.load_prepare = load_prepare  # type: ignore[method-assign]


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # broken EXIF data is no reason to refuse a good picture
        return 1


def _eight_bit(image: Image.Image) -> Image.Image:
    """Scales a grey image of 16 or 32 bits or floats to 8 bits.

    "I" and "F" images do not say what white is: the first of 1 (floats only), 255 and 65535 that no pixel exceeds,
    else the brightest pixel.
    """
    values = np.asarray(image)  # (height, width)
    brightest = float(np.max(values, where=np.isfinite(values), initial=0))
    whites = {"F": (1, 255, 65535), "I": (255, 65535)}.get(image.mode, (65535,))
    white = next((white for white in whites if brightest <= white), brightest)
    shown = np.nan_to_num(values.clip(0, brightest))  # not a number is black
    grey = np.rint(np.multiply(shown, 255 / white, dtype=np.float32)).astype(np.uint8)
    if isinstance(transparent := image.info.get("transparency"), int):
        grey[values == transparent] = 255
    return Image.fromarray(grey)
