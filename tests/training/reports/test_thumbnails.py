"""Thumbnails show what the engine sees."""

import io

import numpy as np
import pytest
from PIL import Image

from training.reports.thumbnails import picture, thumbnail


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    output = io.BytesIO()
    image.save(output, kind, **options)
    return output.getvalue()


def decoded(content: bytes) -> Image.Image:
    return Image.open(io.BytesIO(content)).convert("RGB")


@pytest.mark.parametrize(
    ("size", "shown"), [((600, 300), (256, 128)), ((300, 600), (128, 256)), ((60, 40), (60, 40)), ((2000, 1), (256, 1))]
)
def test_its_shape_is_kept_and_nothing_is_enlarged(size: tuple[int, int], shown: tuple[int, int]) -> None:
    assert decoded(thumbnail(encoded(Image.new("RGB", size), "PNG"))).size == shown


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_a_photograph_that_lies_on_its_side_is_put_upright(kind: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # its top is the right side of what is stored, so turned by 90 degrees
    stored = Image.new("RGB", (64, 32), "black")
    stored.paste("white", (0, 0, 32, 32))
    small = np.asarray(decoded(thumbnail(encoded(stored, kind, exif=exif))))
    assert small.shape == (64, 32, 3)
    assert small[:28].min() > 200
    assert small[36:].max() < 50


def test_what_cannot_be_shown_is_named_in_its_place() -> None:
    def read(name: str) -> bytes:
        raise OSError("the disk is gone")

    assert picture("a<b.jpg", read) == "<p><b>a&lt;b.jpg</b> cannot be shown: the disk is gone</p>"
    assert "&lt;b.jpg</b> cannot be shown: " in picture("a<b.jpg", lambda _: b"")
