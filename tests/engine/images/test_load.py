"""Pixels of an image: the same from every kind of source, upright, of the first frame, and nothing given is changed."""

import io
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from engine.errors import OptionsError
from engine.images.load import load_pixels
from tests.engine.images.pictures import FORMATS, encoded, exact, photograph, same, sixteen_bit


def test_every_kind_of_source_gives_the_same_pixels(tmp_path: Path) -> None:
    image, data = photograph(), encoded(photograph(), "PNG")
    path = tmp_path / "a photo.png"
    path.write_bytes(data)
    sources: list[Any] = [str(path), path, data, bytearray(data), memoryview(data), io.BytesIO(data), image]
    for source in [*sources, Image.open(io.BytesIO(data)), np.asarray(image)]:
        same(source, image)
    with path.open("rb") as file:
        same(file, image)


def test_a_memoryview_need_not_be_contiguous() -> None:
    data = encoded(photograph(), "PNG")
    same(memoryview(bytes(b for pair in zip(data, data, strict=True) for b in pair))[::2], photograph())


@pytest.mark.parametrize("format", [f for f in FORMATS if f not in ("JPEG", "PSD", "AVIF", "GIF", "WEBP")])
def test_lossless_formats_are_read_exactly(format: str) -> None:
    same(encoded(photograph(), format), photograph())


@pytest.mark.parametrize("format", ["JPEG", "AVIF", "WEBP", "GIF"])
def test_lossy_formats_equal_pillows_own_decoding(format: str) -> None:
    data = encoded(photograph(), format)
    same(data, Image.open(io.BytesIO(data)))


def test_pixels_are_a_fresh_contiguous_writable_array() -> None:
    source = np.asarray(photograph())
    pixels = exact(source)
    assert pixels.dtype == np.uint8
    assert pixels.shape == (23, 31, 3)
    assert pixels.flags.c_contiguous
    assert pixels.flags.writeable
    assert not np.shares_memory(pixels, source)


@pytest.mark.parametrize("quick", [False, True])
def test_pixels_may_be_written_into_a_batch(quick: bool) -> None:
    batch = np.full((3, 23, 31, 3), 7, np.uint8)
    assert load_pixels(photograph(), height=23, width=31, out=batch[1], quick=quick).base is batch
    np.testing.assert_array_equal(batch[1], np.asarray(photograph()))
    assert (batch[[0, 2]] == 7).all()
    turned = np.empty((31, 23, 3), np.uint8).transpose(1, 0, 2)
    load_pixels(encoded(photograph(), "PNG"), height=23, width=31, out=turned, quick=quick)
    np.testing.assert_array_equal(turned, np.asarray(photograph()))


def test_pixels_are_written_only_into_what_holds_them_exactly() -> None:
    frozen = np.empty((23, 31, 3), np.uint8)
    frozen.flags.writeable = False
    for out in (frozen, np.empty((31, 23, 3), np.uint8), np.empty((23, 31, 3), np.float32), np.empty((1, 23, 31, 3))):
        with pytest.raises(OptionsError, match=r"out must be a writable uint8 array \(23, 31, 3\), not array"):
            exact(photograph(), out=out)


def test_a_grey_array_is_its_value_in_every_channel() -> None:
    grey = np.arange(23 * 31, dtype=np.uint8).reshape(23, 31)
    np.testing.assert_array_equal(exact(grey), np.repeat(grey[..., None], 3, axis=2))


def test_an_array_need_not_be_contiguous() -> None:
    array = np.asarray(photograph())
    for view in (array[::-1, ::-1], array[..., ::-1], np.asfortranarray(array)):
        np.testing.assert_array_equal(exact(view), view)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF", "pil"])
def test_an_image_stands_upright_whatever_its_exif_orientation(orientation: int, format: str) -> None:
    upright = photograph()
    # EXIF 2.32, tag 274: which edge of the scene the stored row 0 and column 0 are
    row, column = {
        1: ("top", "left"),
        2: ("top", "right"),
        3: ("bottom", "right"),
        4: ("bottom", "left"),
        5: ("left", "top"),
        6: ("right", "top"),
        7: ("right", "bottom"),
        8: ("left", "bottom"),
    }[orientation]
    scene = np.asarray(upright)
    stored = scene if row in ("top", "bottom") else scene.transpose(1, 0, 2)
    stored = stored[::-1] if row in ("bottom", "right") else stored
    stored = stored[:, ::-1] if column in ("bottom", "right") else stored
    image = Image.fromarray(np.ascontiguousarray(stored))
    image.getexif()[274] = orientation
    if format == "pil":
        same(image, upright)
        return
    options = {"lossless": True} if format == "WEBP" else {"quality": 100, "subsampling": 0} if format == "JPEG" else {}
    data = encoded(image, format, exif=image.getexif(), **options)
    difference = np.abs(exact(data).astype(int) - scene)
    assert difference.max() <= (12 if format == "JPEG" else 0)


def test_broken_exif_data_does_not_refuse_a_good_picture() -> None:
    plain = encoded(photograph(), "PNG")
    same(encoded(photograph(), "PNG", exif=b"Exif\x00\x00" + b"\xff" * 40), Image.open(io.BytesIO(plain)))
    image = photograph()
    image.getexif()[274] = 77
    same(image, photograph())


@pytest.mark.parametrize("format", ["GIF", "WEBP", "PNG", "TIFF", "MPO"])
def test_an_animation_is_its_first_frame(format: str) -> None:
    others = [Image.new("RGB", (31, 23), colour) for colour in ("red", "blue")]
    options = {"lossless": True} if format == "WEBP" else {}
    data = encoded(photograph(), format, save_all=True, append_images=others, **options)
    opened: Any = Image.open(io.BytesIO(data))
    assert opened.n_frames == 3
    same(data, opened)


def test_a_pil_image_gives_the_frame_it_stands_at() -> None:
    frames = [photograph(), Image.new("RGB", (31, 23), "red")]
    image = Image.open(io.BytesIO(encoded(frames[0], "TIFF", save_all=True, append_images=frames[1:])))
    image.seek(1)
    same(image, frames[1])
    assert image.tell() == 1


def test_a_file_object_is_read_from_where_it_stands_and_left_open() -> None:
    file = io.BytesIO(b"a header of another format" + encoded(photograph(), "PNG"))
    file.seek(26)
    same(file, photograph())
    assert not file.closed


def test_a_stream_that_cannot_seek_is_read() -> None:
    read_end, write_end = os.pipe()
    with os.fdopen(write_end, "wb") as writer:
        writer.write(encoded(photograph(), "PNG"))
    with os.fdopen(read_end, "rb") as reader:
        same(reader, photograph())
        assert not reader.closed


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "L", "I;16", "F", "CMYK"])
def test_a_pil_image_is_not_modified(mode: str) -> None:
    image = Image.fromarray(sixteen_bit()) if mode == "I;16" else photograph().convert(mode)
    image.info["transparency"] = 0
    image.getexif()[274] = 6
    before = (image.mode, image.size, image.tobytes(), dict(image.info), dict(image.getexif()))
    load_pixels(image, height=5, width=7)
    assert (image.mode, image.size, image.tobytes(), dict(image.info), dict(image.getexif())) == before


def test_a_callers_tiff_of_pages_of_different_sizes_goes_on_as_it_was(tmp_path: Path) -> None:
    first, second = Image.new("RGB", (9, 7), "red"), Image.new("RGB", (5, 11), "blue")
    first.save(tmp_path / "pages.tiff", save_all=True, append_images=[second])
    with Image.open(tmp_path / "pages.tiff") as pages:
        load_pixels(pages, height=4, width=4)
        pages.seek(1)
        assert (load_pixels(pages, height=4, width=4) == (0, 0, 255)).all()
