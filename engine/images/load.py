"""From any image input to uint8 pixels of a given size. Knows nothing of batches or captions."""

import io
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, BinaryIO

import numpy as np
from PIL import Image, ImageFile, TiffImagePlugin
from PIL.JpegImagePlugin import JpegImageFile

from engine.bundle.manifest import RESAMPLE_FILTERS, ImageSpec
from engine.errors import ImageError, OptionsError, RefusalError
from engine.images import colour, jpeg, resize
from engine.images.faults import describe, forget_pictures, reason_of
from engine.images.files import open_path
from engine.images.fit import RULES, Fit, Size
from engine.images.formats import FORMATS, Opened, check_formats, length_if_read_whole, open_image
from engine.images.jxl import JxlFile
from engine.images.memory import DECODING, SMALL, bytes_to_decode
from engine.images.upright import UPRIGHT, Picture, orientation_of, turned

MAX_PIXELS = 152_000_000
"""The size of the largest camera's photographs (a medium format back, 14,204 x 10,652)."""
RESAMPLES = {name: Image.Resampling[name.upper()] for name in RESAMPLE_FILTERS}
ImageInput = str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO | Image.Image | np.ndarray


def load_pixels(
    source: ImageInput,
    *,
    height: int,
    width: int,
    resample: str = "bicubic",
    fit: str = "squash",
    fill: tuple[int, int, int] = (0, 0, 0),
    **limits: Any,
) -> np.ndarray:
    """Returns an image, upright and in this size: uint8 RGB (height, width, 3).

    fit: "squash" resizes the whole image and ignores its aspect ratio; "crop" resizes the largest part in its middle
    with the new aspect ratio; "letterbox" keeps the aspect ratio and fills what is left on two sides with `fill`.
    limits and the rest: see `load_for_model`.
    """
    if resample not in RESAMPLES:
        raise OptionsError(f"resample must be one of {', '.join(RESAMPLES)}, not {resample!r}")
    if fit not in RULES:
        raise OptionsError(f"fit must be one of {', '.join(RULES)}, not {fit!r}")
    return load_for_model(source, ImageSpec(height, width, fill, (1, 1, 1), fit, resample), **limits)


def load_for_model(
    source: ImageInput,
    image: ImageSpec,
    *,
    max_pixels: int = MAX_PIXELS,
    formats: Sequence[str] = FORMATS,
    out: np.ndarray | None = None,
    quick: bool = False,
) -> np.ndarray:
    """Returns an image as a bundle's model needs it: uint8 RGB (height, width, 3).

    A file object is read from its current position to its end and stays open; of a PIL image the current frame counts.
    Transparent pixels become white, more than 8 bits per channel are scaled to 8, and profiles are converted to sRGB.
    max_pixels limits the size as stored, and is checked before anything is decoded. So is the memory for decoding: at
    most 400 MB, or 3 bytes per max_pixels if that is more. A JPEG that is at least twice as large as needed on both
    sides is reduced by 2, 4 or 8 while it is decoded, but never below the size that is needed.
    formats: Pillow's names of the formats to read.
    out: a uint8 array of this shape, which is filled and returned; by default a new, contiguous one.
    quick: uses the packages of the extra "fast" if they are installed; nearly all values are within 1 level of the
    exact ones. Raises ImageError for anything wrong with the input; `out` may then have been overwritten.
    """
    shape = image.height, image.width, 3
    if out is not None and (out.shape != shape or out.dtype != np.uint8 or not out.flags.writeable):
        raise OptionsError(f"out must be a writable uint8 array {shape}, not {describe(out)}")
    pixels = _pixels(source, _Aim(image, max_pixels, quick, check_formats(formats)))
    if out is None:
        return pixels.copy()
    out[:] = pixels
    return out


def load_thumbnail(
    source: ImageInput, side: int, *, max_pixels: int = MAX_PIXELS, formats: Sequence[str] = FORMATS
) -> np.ndarray:
    """Returns all of an image, upright, its longer side `side` pixels long: uint8 RGB (height, width, 3).

    Raises ImageError, as `load_for_model` does.
    """
    spec = ImageSpec(side, side, (0, 0, 0), (1, 1, 1), "letterbox")
    return _pixels(source, _Unfilled(spec, max_pixels, True, check_formats(formats)))


def _pixels(source: ImageInput, aim: "_Aim") -> np.ndarray:
    """Returns an image's pixels, which may be the caller's own. Raises ImageError."""
    shape = aim.spec.height, aim.spec.width, 3
    outer = sys.exception()  # the caller may be handling one: leave its frames alone
    try:
        if isinstance(source, str | os.PathLike):
            with open_path(Path(os.fsdecode(source))) as file:
                return _from_file(file, aim)
        if isinstance(source, Image.Image):
            _check_size(source.size, aim.max_pixels)
            with DECODING.hold(bytes_to_decode(source, aim.stretched_width, quick=aim.quick)):
                return _fitted(source, aim)
        if isinstance(source, np.ndarray):
            picture = _from_array(source, aim.max_pixels)
            return source if source.shape == shape else _fitted(picture, aim)  # no resize needed
        if isinstance(source, bytes | bytearray | memoryview):
            return _from_file(io.BytesIO(bytes(source)), aim)
        if hasattr(source, "read"):
            return _from_file(io.BytesIO(source.read()), aim)
        raise RefusalError("is not an image: pass a path, bytes, a binary file, a PIL image or a numpy array")
    except Exception as error:  # Pillow raises nearly anything on hostile input
        advice = error.advice if isinstance(error, RefusalError) else ""
        forget_pictures(error, outer)
        raise ImageError(reason_of(error), source=describe(source), advice=advice) from error


@dataclass(frozen=True, slots=True)
class _Aim:
    """The wanted pixels, and the limits for reading them."""

    spec: ImageSpec
    max_pixels: int
    quick: bool
    formats: tuple[str, ...]

    @property
    def most_bytes(self) -> int:
        """Memory limit for decoding: that of all decoders together, or more if max_pixels was raised."""
        return max(DECODING.size, 3 * self.max_pixels)

    @property
    def stretched_width(self) -> int:
        """The width that every image is stretched to; 0 if images keep their aspect ratio."""
        return self.spec.width if self.spec.resize == "squash" else 0

    def fit(self, image: Size) -> Fit:
        """Returns which part of an upright image is shown, and in which size."""
        return RULES[self.spec.resize](image, (self.spec.width, self.spec.height))

    def filled(self, pixels: np.ndarray) -> np.ndarray:
        """Returns pixels with borders of the fill colour, so that they have the wanted height and width."""
        height, width = pixels.shape[:2]
        if (height, width) == (self.spec.height, self.spec.width):
            return pixels
        top, left = (self.spec.height - height) // 2, (self.spec.width - width) // 2
        whole = np.full((self.spec.height, self.spec.width, 3), self.spec.fill, np.uint8)
        whole[top : top + height, left : left + width] = pixels
        return whole


@dataclass(frozen=True, slots=True)
class _Unfilled(_Aim):
    """The same, but an image that does not fill the wanted pixels stays smaller."""

    def filled(self, pixels: np.ndarray) -> np.ndarray:
        """Returns pixels as they are."""
        return pixels


@dataclass(frozen=True, slots=True)
class _Header:
    """An opened image, its size as stored, and the bytes needed to decode it, including a file that is read whole."""

    image: Opened
    size: Size
    cost: int


def _from_file(file: IO[bytes], aim: _Aim) -> np.ndarray:
    length = length_if_read_whole(file)
    if length <= SMALL:
        opened = _opened(file, aim)
        with DECODING.hold(opened.cost):
            return _decoded(opened, file, aim)
    with DECODING.hold(length):  # released again: two threads that hold some and want more would wait for ever
        cost = _opened(file, aim, length).cost
    with DECODING.hold(cost):
        return _decoded(_opened(file, aim, length), file, aim)


def _opened(file: IO[bytes], aim: _Aim, length: int = 0) -> _Header:
    """Reads the header. length: that of a file that stays in memory, else 0."""
    file.seek(0)
    image = open_image(file, aim.formats, aim.most_bytes)
    _check_size(image.size, aim.max_pixels)
    width, height = stored = image.size
    kept = _shrink(image, file, aim) if isinstance(image, JpegImageFile) else length
    cost = kept + bytes_to_decode(image, aim.stretched_width, quick=aim.quick)
    if cost > aim.most_bytes:
        size = f"{width:,} x {height:,} pixels as {image.format} take {cost // 10**6:,} MB to decode"
        limit = f"more than the limit of {aim.most_bytes // 10**6:,}"
        raise RefusalError(f"is too large: {size}, {limit}", "raise max_pixels if you trust it")
    return _Header(image, stored, cost)


def _decoded(opened: _Header, file: IO[bytes], aim: _Aim) -> np.ndarray:
    if isinstance(opened.image, JpegImageFile):
        return _read_jpeg(opened.image, file, aim, opened.size)
    if not isinstance(opened.image, JxlFile):
        return _fitted(opened.image, aim)
    decoded = opened.image.decode()
    if isinstance(decoded, Image.Image):
        return _fitted(decoded, aim)
    file = io.BytesIO(decoded)
    jpeg_image = open_image(file, ("JPEG",), aim.most_bytes)
    _check_size(jpeg_image.size, aim.max_pixels)
    assert isinstance(jpeg_image, JpegImageFile)
    stored = jpeg_image.size
    _shrink(jpeg_image, file, aim)
    return _read_jpeg(jpeg_image, file, aim, stored)


def _shrink(image: JpegImageFile, file: IO[bytes], aim: _Aim) -> int:
    """Sets the decoding scale of a JPEG; returns the bytes that decoders need regardless of that scale."""
    kept = jpeg.kept_between_scans(image, file)
    if aim.quick and (length := jpeg.length_read_whole(file)) > SMALL:
        kept += length
    if aim.spec.resample != "nearest":  # it takes single pixels, and a reduced image has others
        orientation = orientation_of(image)
        target = aim.fit(turned(image.size, orientation)).target
        jpeg.shrink(image, *turned(target, orientation))
    return kept


def _read_jpeg(image: JpegImageFile, file: IO[bytes], aim: _Aim, stored: Size) -> np.ndarray:
    orientation = orientation_of(image)
    if aim.quick and orientation not in UPRIGHT and resize.can_resize(image.size, aim.spec.resample):
        rows = jpeg.decode(image, file)
        if rows is not None:
            return _quickly(rows, image.size, aim, stored, colour.conversion(image.info, image.mode))
    return _fitted(image, aim, turned(stored, orientation))


def _fitted(image: Image.Image, aim: _Aim, stored: Size | None = None) -> np.ndarray:
    """Decodes and resizes an image. stored: its upright size, if it is reduced while it is decoded."""
    _load(image)
    _check_size(image.size, aim.max_pixels)  # the true size of icons is known only now
    change = colour.conversion(image.info, image.mode)
    picture = Picture(image, orientation_of(image), "CMYK" if change and image.mode == "CMYK" else "RGB")
    shown = picture.shown()
    if aim.quick and shown.mode == "RGB" and resize.can_resize(shown.size, aim.spec.resample):
        return _quickly(shown.tobytes(), shown.size, aim, stored or shown.size, change)
    fit = aim.fit(stored or shown.size)
    resized = shown.resize(fit.target, RESAMPLES[aim.spec.resample], fit.box(shown.size))
    return aim.filled(np.asarray(change(resized) if change else resized))


def _quickly(rows: bytes, size: Size, aim: _Aim, stored: Size, change: colour.Conversion | None) -> np.ndarray:
    fit = aim.fit(stored)
    pixels = resize.resize(rows, size, fit.target, aim.spec.resample, fit.box(size))
    return aim.filled(np.asarray(change(Image.fromarray(pixels))) if change else pixels)


def _load(image: Image.Image) -> None:
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        _skip_second_size_check(image)
    try:
        image.load()
    finally:
        vars(image).pop("load_prepare", None)  # leave a caller's image unchanged


def _from_array(array: np.ndarray, max_pixels: int) -> Image.Image:
    is_image = array.ndim == 2 or (array.ndim == 3 and array.shape[2] == 3)
    if array.dtype != np.uint8 or not is_image or array.size == 0:
        raise RefusalError("must be uint8 of shape (height, width, 3) or (height, width) and not empty")
    _check_size((array.shape[1], array.shape[0]), max_pixels)
    return Image.fromarray(array)


def _check_size(size: tuple[int, int], max_pixels: int) -> None:
    width, height = size
    if width * height == 0:
        raise RefusalError(f"has no pixels ({width} x {height})")
    if width * height > max_pixels:
        pixels = f"{width * height:,} pixels ({width:,} x {height:,})"
        raise RefusalError(f"has {pixels}, more than the limit of {max_pixels:,}", "raise max_pixels if you trust it")


def _skip_second_size_check(image: TiffImagePlugin.TiffImageFile) -> None:
    """Gives this TIFF Pillow's plain load_prepare: the one of its TIFF reader warns about sizes below our limit."""
    stored_size = getattr(image, "_tile_size", image.size)  # before its orientation is applied

    def load_prepare() -> None:
        if image._im is None:
            image.im = Image.new(image.mode, stored_size).im
        ImageFile.ImageFile.load_prepare(image)

    image.load_prepare = load_prepare  # type: ignore[method-assign]
