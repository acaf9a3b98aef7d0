"""Converts a decoded image to upright RGB. Owns orientation, alpha and depth; knows no files.

Conversion works strip by strip, so that there are never more than two images of full size. Resizing does not, because
Pillow resizes rows or columns first, whichever is faster, and rounds in between.
"""

from dataclasses import dataclass

import numpy as np
from PIL import ExifTags, Image

STRIP_PIXELS = 1 << 21  # 8 MB in RGB, a few times over where there is alpha
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # EXIF orientation -> the transposition to upright
LYING = range(5, 9)  # orientations that swap width and height
FROM_THE_END = (3, 4, 7, 8)  # orientations whose upper rows are stored as the last rows or columns


def orientation_of(image: Image.Image) -> int:
    """Returns the EXIF orientation, 1 if there is none."""
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # broken EXIF data is no reason to refuse a good image
        return 1


def turned(size: tuple[int, int], orientation: int) -> tuple[int, int]:
    """Returns the size, upright, of an image that is stored with this size, and the other way round."""
    return (size[1], size[0]) if orientation in LYING else size


@dataclass(frozen=True, slots=True)
class Picture:
    """An opened image, its EXIF orientation, and the target mode: RGB, or CMYK unchanged."""

    image: Image.Image
    orientation: int = 1
    mode: str = "RGB"

    @property
    def size(self) -> tuple[int, int]:
        """Width and height when upright."""
        return turned(self.image.size, self.orientation)

    def shown(self) -> Image.Image:
        """Returns the converted image, or the given one if it needs no conversion."""
        is_ready = self.image.mode == self.mode and self.orientation not in UPRIGHT
        if is_ready and not self.image.has_transparency_data:
            return self.image
        width, height = self.size
        values = self._range()
        rows = max(1, STRIP_PIXELS // width)
        if rows >= height:
            return self._changed(self.image, values)
        picture = Image.new(self.mode, (width, height))
        for top in range(0, height, rows):
            strip = self.image.crop(self._stored(top, min(top + rows, height)))
            picture.paste(self._changed(strip, values), (0, top))
        return picture

    def _stored(self, top: int, bottom: int) -> tuple[int, int, int, int]:
        """Returns the box in the stored image with these rows of the upright one."""
        if self.orientation in FROM_THE_END:
            top, bottom = self.size[1] - bottom, self.size[1] - top
        width, height = self.image.size
        return (top, 0, bottom, height) if self.orientation in LYING else (0, top, width, bottom)

    def _changed(self, image: Image.Image, values: "_Range | None") -> Image.Image:
        if self.orientation in UPRIGHT:
            image = image.transpose(UPRIGHT[self.orientation])
        if values:
            image = values.eight_bit(image)
        if image.has_transparency_data:
            above = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", above.size, "white"), above)
        return image if image.mode == self.mode else image.convert(self.mode)

    def _range(self) -> "_Range | None":
        """Returns the value range of a grey image of 16 or 32 bits or floats, None for others."""
        mode, (width, height) = self.image.mode, self.image.size
        if mode.startswith("I;16"):
            return _Range(65535, 65535)
        if mode not in ("I", "F"):
            return None
        rows = max(1, STRIP_PIXELS // width)
        strips = (self.image.crop((0, top, width, min(top + rows, height))) for top in range(0, height, rows))
        arrays = map(np.asarray, strips)
        brightest = max(float(np.max(values, where=np.isfinite(values), initial=0)) for values in arrays)
        whites = (1, 255, 65535) if mode == "F" else (255, 65535)
        return _Range(brightest, next((white for white in whites if brightest <= white), brightest))


@dataclass(frozen=True, slots=True)
class _Range:
    """The brightest value of a high-depth grey image, and the value of white.

    "I" and "F" images do not define white: it is the first of 1 (floats only), 255 and 65535 that no pixel exceeds,
    else the brightest pixel.
    """

    brightest: float
    white: float

    def eight_bit(self, image: Image.Image) -> Image.Image:
        """Returns the image, or a part of it, scaled to 8 bits."""
        values = np.asarray(image)  # (height, width)
        shown = np.nan_to_num(values.clip(0, self.brightest))  # NaN becomes black
        grey = np.rint(np.multiply(shown, 255 / self.white, dtype=np.float32)).astype(np.uint8)
        if isinstance(transparent := image.info.get("transparency"), int):
            grey[values == transparent] = 255
        return Image.fromarray(grey)
