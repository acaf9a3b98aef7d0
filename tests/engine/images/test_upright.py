"""A picture that is made upright RGB strip by strip is, to the last level, one that is made so at once."""

import numpy as np
import pytest
from PIL import Image

from engine.images import upright
from engine.images.load import load_pixels
from engine.images.upright import Picture
from tests.engine.images.pictures import photograph

MODES = ("1", "L", "P", "RGB", "RGBA", "LA", "CMYK", "YCbCr", "I;16", "I;16B", "I", "F")


def picture(mode: str, orientation: int, wanted: str = "RGB") -> Picture:
    image = photograph(61, 47)
    if mode in ("I;16", "I;16B", "I", "F"):
        wide = np.asarray(image.convert("L")).astype(np.uint32) * 200
        kind = np.dtype({"I;16": "<u2", "I;16B": ">u2", "I": "=i4", "F": "=f4"}[mode])
        image = Image.frombytes(mode, image.size, wide.astype(kind).tobytes())
    elif mode in ("RGBA", "LA"):
        image = image.convert(mode)
        image.putalpha(photograph(61, 47).getchannel(2))
    else:
        image = image.convert(mode)
    if mode == "P":
        image.info["transparency"] = 7
    return Picture(image, orientation, wanted)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("mode", MODES)
def test_strips_give_the_pixels_of_the_whole(mode: str, orientation: int, monkeypatch: pytest.MonkeyPatch) -> None:
    each = picture(mode, orientation)
    whole = each.shown()
    assert (whole.mode, whole.size) == ("RGB", each.size)
    for pixels in (1, 100, 700):
        monkeypatch.setattr(upright, "STRIP_PIXELS", pixels)
        np.testing.assert_array_equal(each.shown(), whole)


def test_cmyk_stays_cmyk_where_that_is_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    each = picture("CMYK", 6, "CMYK")
    monkeypatch.setattr(upright, "STRIP_PIXELS", 500)
    np.testing.assert_array_equal(each.shown(), each.image.transpose(Image.Transpose.ROTATE_270))


def test_a_picture_that_is_ready_is_not_copied() -> None:
    each = picture("RGB", 1)
    assert each.shown() is each.image


def test_white_of_wide_grey_is_that_of_the_whole_picture_and_not_of_a_strip(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.full((40, 10), 50, np.int32)
    values[39] = 60_000
    monkeypatch.setattr(upright, "STRIP_PIXELS", 30)
    assert load_pixels(Image.fromarray(values), height=40, width=10)[:39].max() == 0
