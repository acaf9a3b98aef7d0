"""JPEG XL: read with the extra photos; its size is known, and believed, before anything is decoded."""

import io
import itertools
import struct
import time
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from engine.images.jxl import JxlFile
from engine.images.load import load_pixels
from tests.engine.images.pictures import STORED, encoded, exif, near, photograph, reason, sixteen_bit

pytestmark = pytest.mark.skipif(find_spec("pillow_jxl") is None, reason="pillow_jxl is not installed")
NO_HEADER = "is not an image of a known format, or its header is broken"


def jxl(image: Image.Image, **options: Any) -> bytes:
    import pillow_jxl  # noqa: F401 - registers what writes it

    return encoded(image, "JXL", **{"lossless": True, **options})


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA"])
def test_a_jpeg_xl_photograph_is_read(mode: str) -> None:
    image = photograph().convert(mode)
    if mode in ("RGBA", "LA"):
        image.putalpha(photograph().getchannel(1))
    np.testing.assert_array_equal(load_pixels(jxl(image), height=23, width=31), load_pixels(image, height=23, width=31))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("noted", ["in a JPEG that was packed", "in EXIF"])
def test_a_jpeg_xl_photograph_is_turned_once(orientation: int, noted: str, tmp_path: Path) -> None:
    scene = photograph(124, 92).resize((31 * 8, 23 * 8), Image.Resampling.BICUBIC)
    stored = scene.transpose(STORED[orientation]) if orientation in STORED else scene
    if noted == "in EXIF":
        near(jxl(stored, exif=exif(orientation)), scene)
        return
    stored.save(tmp_path / "photo.jpg", quality=95, subsampling=0, exif=exif(orientation))
    with Image.open(tmp_path / "photo.jpg") as opened, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the plug-in says that it packs the file as it is
        data = jxl(opened, lossless=False)
    assert JxlFile(io.BytesIO(data)).size == scene.size  # upright: the codestream notes the orientation
    assert JxlFile(io.BytesIO(data)).orientation == orientation
    expected = load_pixels(tmp_path / "photo.jpg", height=90, width=100)
    np.testing.assert_array_equal(load_pixels(data, height=90, width=100), expected)
    pixels_alone = data.replace(b"jbrd", b"free").replace(b"Exif", b"free")  # not what makes a JPEG of it again
    near(pixels_alone, scene)


@pytest.mark.parametrize("container", [False, True])
@pytest.mark.parametrize(
    "size",
    [(1, 1), (8, 8), (256, 256), (264, 256), (31, 23), (512, 513), (640, 480), (1600, 900), (9000, 3), (700, 350)],
)
def test_the_size_of_a_jpeg_xl_is_known_before_it_is_decoded(size: tuple[int, int], container: bool) -> None:
    data = jxl(Image.new("RGB", size), use_container=container, effort=1)
    assert JxlFile(io.BytesIO(data)).size == size


def test_a_jpeg_xl_over_the_limit_is_refused_before_its_pixels_are_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    data = jxl(photograph(200, 100))
    monkeypatch.setattr(JxlFile, "decode", lambda self: pytest.fail("decoded"))
    assert "has 20,000 pixels (200 x 100), more than the limit of 19,999" in reason(data, max_pixels=19_999)


def test_sixteen_bits_of_grey_go_by_the_light_that_the_file_says() -> None:
    values = sixteen_bit()
    pixels = load_pixels(jxl(Image.fromarray(values)), height=23, width=31)  # written as linear light
    light = values / 65535
    signal = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    dark = light < 0.05  # where 8 bits of linear light tell little apart
    assert np.abs(pixels[..., 1] - 255 * signal)[~dark].max() < 4


def test_an_animated_jpeg_xl_is_refused() -> None:
    still = jxl(Image.new("RGB", (8, 8)))
    # small, 1/1 of 8, not all default, extra fields: orientation 1, no size, no preview, an animation
    bits = "1" + "00000" + "100" + "0" + "1" + "000" + "0" + "0" + "1"
    header = int(bits[::-1], 2).to_bytes(4, "little")
    assert "is an animated JPEG XL file" in reason(still[:2] + header + still[6:])


def test_a_cut_or_broken_jpeg_xl_is_refused() -> None:
    data = jxl(photograph(200, 150))
    for share in (0.001, 0.01, 0.1, 0.5, 0.9):
        reason(data[: max(2, int(share * len(data)))])
    reason(b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(99))
    reason(b"\0\0\0\x0cJXL \r\n\x87\n" + b"\0\0\0\x04jxlp" + bytes(99))


def box(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I4s", 8 + len(content), kind) + content


def container(*boxes: bytes) -> bytes:
    return b"".join((box(b"JXL ", b"\r\n\x87\n"), box(b"ftyp", b"jxl \0\0\0\0jxl "), *boxes))


def parts(codestream: bytes, *cuts: int) -> list[bytes]:
    """Boxes of a codestream that is cut there."""
    places = [0, *cuts, len(codestream)]
    pieces = [codestream[begin:end] for begin, end in itertools.pairwise(places)]
    last = len(pieces) - 1
    return [box(b"jxlp", struct.pack(">I", i | (i == last) << 31) + piece) for i, piece in enumerate(pieces)]


def test_a_jpeg_xl_in_parts_is_read() -> None:
    codestream = jxl(photograph(), use_container=False)
    for cuts in ((), (3,), (1, 2, 3, 4, 5), (40, 60)):
        pixels = load_pixels(container(*parts(codestream, *cuts)), height=23, width=31)
        np.testing.assert_array_equal(pixels, np.asarray(photograph()))


def test_a_jpeg_xl_with_two_codestreams_is_refused_before_either_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    small, large = (jxl(Image.new("RGB", (side, side)), use_container=False) for side in (8, 3000))
    monkeypatch.setattr(JxlFile, "decode", lambda self: pytest.fail("decoded"))
    told, bomb = box(b"jxlc", small), box(b"jxlc", large)
    for boxes in ([*parts(large), told], [told, *parts(large)], [bomb, told], [*parts(large, 20), told]):
        assert reason(container(*boxes), max_pixels=64).startswith(NO_HEADER)


def test_a_jpeg_xl_that_decodes_to_another_size_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    import pillow_jxl

    real, larger = pillow_jxl.Decoder, jxl(photograph(62, 46))
    monkeypatch.setattr(pillow_jxl, "Decoder", lambda **options: lambda _: real(**options)(larger))
    assert "another size than the header says" in reason(jxl(photograph()))


def test_a_container_of_millions_of_boxes_is_refused_at_once() -> None:
    began = time.process_time()
    data = container(*parts(jxl(photograph(), use_container=False)), 3_000_000 * box(b"free", b""))
    assert reason(data).startswith(NO_HEADER)
    assert time.process_time() - began < 0.7
