"""Photographs of phones, HEIC: read with the extra photos, turned once, and refused before they take too much."""

import io
import struct
import subprocess
import sys
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest
from PIL import Image

from engine.images.load import load_pixels
from tests.engine.images.pictures import STORED, exif, heif, near, photograph, reason

pytestmark = pytest.mark.skipif(
    not (find_spec("pi_heif") and find_spec("pillow_heif")),
    reason="pi_heif reads HEIC and pillow_heif writes it: not installed",
)


def heif_as_taken(image: Image.Image, orientation: int) -> bytes:
    """A file as phones write it: pixels as the sensor stands, turned by the container, and EXIF that says it again."""
    import pillow_heif

    encoder: Any = pillow_heif.from_pillow(image)
    del encoder[0]
    encoder.add_frombytes("RGB", image.size, image.tobytes())
    encoder[0].info["exif"] = exif(orientation)
    file = io.BytesIO()
    encoder.save(file, quality=-1, chroma=444)
    return file.getvalue()


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L"])
def test_a_heic_photograph_is_read(mode: str) -> None:
    image = photograph().convert(mode)
    if mode == "RGBA":
        image.putalpha(photograph().getchannel(1))
    shown = load_pixels(image, height=23, width=31)
    near(heif(image), Image.fromarray(shown))


@pytest.mark.parametrize("orientation", sorted(STORED))
def test_a_heic_photograph_is_turned_once_though_exif_says_it_too(orientation: int) -> None:
    data = heif_as_taken(photograph().transpose(STORED[orientation]), orientation)
    assert b"irot" in data or b"imir" in data
    assert exif(orientation).removeprefix(b"Exif\0\0") in data
    near(data, photograph())


def test_what_exif_alone_says_of_a_heic_photograph_does_not_count() -> None:
    data = bytearray(heif_as_taken(photograph(), 3))
    data[data.index(b"irot") + 4] = 0  # a quarter of a turn, none of them
    near(bytes(data), photograph())


def test_the_primary_image_of_a_burst_is_the_photograph() -> None:
    import pillow_heif

    burst = pillow_heif.from_pillow(Image.new("RGB", (40, 40), "red"))
    burst.add_from_pillow(photograph())
    burst.add_from_pillow(Image.new("RGB", (64, 64), "blue"))
    file = io.BytesIO()
    burst.save(file, quality=-1, chroma=444, primary_index=1)
    near(file.getvalue(), photograph())


def test_ten_bits_become_eight() -> None:
    import pillow_heif

    values = np.asarray(photograph()).astype(np.uint16) * 257
    file = io.BytesIO()
    pillow_heif.from_bytes("RGB;16", (31, 23), values.tobytes()).save(file, quality=-1, chroma=444)
    assert pillow_heif.open_heif(file.getvalue(), convert_hdr_to_8bit=False).info["bit_depth"] == 10
    near(file.getvalue(), photograph())


def test_a_long_heic_is_read() -> None:
    data = heif(photograph())
    long = data + struct.pack(">I4s", 8 + 10_000_000, b"mpvd") + bytes(10_000_000)
    np.testing.assert_array_equal(load_pixels(data, height=9, width=9), load_pixels(long, height=9, width=9))


def test_a_heic_over_the_limit_is_refused_before_its_pixels_are_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    from pi_heif.heif import HeifImage

    data = heif(photograph(200, 100))
    monkeypatch.setattr(HeifImage, "load", lambda self: pytest.fail("decoded"))
    assert "has 20,000 pixels (200 x 100), more than the limit of 19,999" in reason(data, max_pixels=19_999)


def test_a_cut_heic_is_refused() -> None:
    data = heif(photograph(200, 150))
    for share in (0.001, 0.01, 0.1, 0.5, 0.99):
        reason(data[: max(8, int(share * len(data)))])


def test_reading_heic_leaves_the_pillow_of_others_as_it_is() -> None:
    code = (
        "import sys; from PIL import Image; from engine.images.load import load_pixels; "
        "load_pixels(sys.stdin.buffer, height=8, width=8); print('HEIF' in Image.OPEN)"
    )
    done = subprocess.run([sys.executable, "-c", code], input=heif(photograph()), capture_output=True, check=True)
    assert done.stdout.strip() == b"False"
