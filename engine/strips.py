"""A decoded picture -> upright RGB of the asked size, strip by strip. Owns orientation, alpha and depth.

Knows nothing of files and colour profiles. Pillow resizes rows first and columns then, so strips of rows that are made
narrow one by one and together made short give the very pixels of one resize, without a second picture of full size.
"""

from dataclasses import dataclass

import numpy as np
from PIL import Image

RESAMPLES = {name.lower(): Image.Resampling[name] for name in ("NEAREST", "BOX", "BILINEAR", "BICUBIC", "LANCZOS")}
STRIP_PIXELS = 1 << 21  # 8 MB in RGB, a few times over where there is alpha
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # EXIF orientation -> what turns it upright
LYING = range(5, 9)  # orientations that swap width and height
FROM_THE_END = (3, 4, 7, 8)  # orientations whose upper rows are the last rows, or columns, that are stored


@dataclass(frozen=True, slots=True)
class Picture:
    """A decoded image, its EXIF orientation, and the mode that it is wanted in: RGB, or CMYK as it is."""

    image: Image.Image
    orientation: int = 1
    mode: str = "RGB"

    @property
    def size(self) -> tuple[int, int]:
        """Width and height as it stands upright."""
        width, height = self.image.size
        return (height, width) if self.orientation in LYING else (width, height)

    def whole(self) -> Image.Image:
        """Returns the upright picture, which is the given image where nothing had to be changed."""
        return self._shown(self.image, self._range())

    def resized(self, height: int, width: int, resample: str) -> Image.Image:
        """Returns the upright picture in the asked size: the pixels of `whole` and one resize."""
        upright_width, upright_height = self.size
        rows = max(1, STRIP_PIXELS // upright_width)
        if rows >= upright_height:
            return self.whole().resize((width, height), RESAMPLES[resample])
        narrow = Image.new(self.mode, (width, upright_height))
        values = self._range()
        for top in range(0, upright_height, rows):
            bottom = min(top + rows, upright_height)
            strip = self._shown(self.image.crop(self._stored(top, bottom)), values)
            narrow.paste(strip.resize((width, bottom - top), RESAMPLES[resample]), (0, top))
        return narrow.resize((width, height), RESAMPLES[resample])

    def _stored(self, top: int, bottom: int) -> tuple[int, int, int, int]:
        """Returns the box of the stored image that holds these rows of the upright one."""
        if self.orientation in FROM_THE_END:
            top, bottom = self.size[1] - bottom, self.size[1] - top
        width, height = self.image.size
        return (top, 0, bottom, height) if self.orientation in LYING else (0, top, width, bottom)

    def _shown(self, image: Image.Image, values: "_Range | None") -> Image.Image:
        if self.orientation in UPRIGHT:
            image = image.transpose(UPRIGHT[self.orientation])
        if values:
            image = values.eight_bit(image)
        if image.has_transparency_data:
            above = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", above.size, "white"), above)
        return image if image.mode == self.mode else image.convert(self.mode)

    def _range(self) -> "_Range | None":
        """Returns what the values of a grey image of 16 or 32 bits or floats mean, None for any other image."""
        mode, (width, height) = self.image.mode, self.image.size
        if mode.startswith("I;16"):
            return _Range(65535, 65535)
        if mode not in ("I", "F"):
            return None
        rows = max(1, STRIP_PIXELS // width)
        strips = (self.image.crop((0, top, width, min(top + rows, height))) for top in range(0, height, rows))
        brightest = max(_brightest(np.asarray(strip)) for strip in strips)
        whites = (1, 255, 65535) if mode == "F" else (255, 65535)
        return _Range(brightest, next((white for white in whites if brightest <= white), brightest))


def _brightest(values: np.ndarray) -> float:
    return float(np.max(values, where=np.isfinite(values), initial=0))


@dataclass(frozen=True, slots=True)
class _Range:
    """The brightest value of a wide grey image, and the one that is white.

    "I" and "F" images do not say what white is: the first of 1 (floats only), 255 and 65535 that no pixel exceeds,
    else the brightest pixel.
    """

    brightest: float
    white: float

    def eight_bit(self, image: Image.Image) -> Image.Image:
        """Returns the image, or a part of it, scaled to 8 bits."""
        values = np.asarray(image)  # (height, width)
        shown = np.nan_to_num(values.clip(0, self.brightest))  # not a number is black
        grey = np.rint(np.multiply(shown, 255 / self.white, dtype=np.float32)).astype(np.uint8)
        if isinstance(transparent := image.info.get("transparency"), int):
            grey[values == transparent] = 255
        return Image.fromarray(grey)
