import contextlib
import io
import os
import stat
import struct
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from engine.errors import ImageError, OptionsError
from engine.images.faults import describe
from engine.images.formats import FORMATS as USUAL
from engine.images.load import RESAMPLES, load_pixels

FORMATS = ("JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "TGA", "JPEG2000", "AVIF", "PSD", "QOI")


def photograph(width: int = 31, height: int = 23) -> Image.Image:
    """A drawn picture without any symmetry."""
    y, x = np.mgrid[:height, :width]
    red, green, blue = x * 255 // (width - 1), y * 255 // (height - 1), (x * y) % 256
    return Image.fromarray(np.stack([red, green, blue], axis=-1).astype(np.uint8))


def encoded(image: Image.Image, format: str = "JPEG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def exact(source: Any, **options: Any) -> np.ndarray:
    """The pixels of a 31 x 23 image at their own size, so that nothing is resampled; rare formats too."""
    return load_pixels(source, **{"height": 23, "width": 31, "formats": (*USUAL, "TGA", "QOI"), **options})


def same(source: Any, expected: Image.Image) -> None:
    np.testing.assert_array_equal(exact(source), np.asarray(expected.convert("RGB")))


def refused(source: Any, because: str, **options: Any) -> ImageError:
    with pytest.raises(ImageError, match=because) as caught:
        load_pixels(source, height=8, width=8, **options)
    assert "\n" not in str(caught.value)
    assert str(caught.value).removesuffix(f"; {caught.value.advice}") == f"{describe(source)}: {caught.value.reason}"
    assert isinstance(caught.value, ValueError)
    return caught.value


# --- every kind of input gives the same pixels


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


@pytest.mark.parametrize(("format", "options"), [("JPEG", {}), ("AVIF", {}), ("WEBP", {}), ("GIF", {})])
def test_lossy_formats_equal_pillows_own_decoding(format: str, options: dict[str, Any]) -> None:
    data = encoded(photograph(), format, **options)
    same(data, Image.open(io.BytesIO(data)))


def test_pixels_are_a_fresh_contiguous_writable_array() -> None:
    source = np.asarray(photograph())
    pixels = exact(source)
    assert pixels.dtype == np.uint8
    assert pixels.shape == (23, 31, 3)
    assert pixels.flags.c_contiguous
    assert pixels.flags.writeable
    assert not np.shares_memory(pixels, source)


@pytest.mark.parametrize("name", RESAMPLES)
def test_pixels_are_a_full_decode_and_one_resize_of_the_whole_image(name: str) -> None:
    data = encoded(photograph(640, 480), "JPEG")
    expected = Image.open(io.BytesIO(data)).resize((330, 250), Image.Resampling[name.upper()])
    np.testing.assert_array_equal(load_pixels(data, height=250, width=330, resample=name), np.asarray(expected))


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


# --- arrays


def test_a_grey_array_is_its_value_in_every_channel() -> None:
    grey = np.arange(23 * 31, dtype=np.uint8).reshape(23, 31)
    np.testing.assert_array_equal(exact(grey), np.repeat(grey[..., None], 3, axis=2))


def test_an_array_need_not_be_contiguous() -> None:
    array = np.asarray(photograph())
    for view in (array[::-1, ::-1], array[..., ::-1], np.asfortranarray(array)):
        np.testing.assert_array_equal(exact(view), view)


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((5, 5, 3), np.float32),
        np.zeros((5, 5, 3), np.uint16),
        np.zeros((5, 5, 3), np.int8),
        np.zeros((5, 5), np.bool_),
        np.zeros((5, 5), np.object_),
        np.zeros((5, 5, 4), np.uint8),
        np.zeros((5, 5, 1), np.uint8),
        np.zeros((3, 5, 5), np.uint8),
        np.zeros((1, 5, 5, 3), np.uint8),
        np.zeros(5, np.uint8),
        np.zeros((), np.uint8),
        np.zeros((0, 5, 3), np.uint8),
        np.zeros((5, 0), np.uint8),
    ],
    ids=describe,
)
def test_an_array_of_another_type_or_shape_is_refused(array: np.ndarray) -> None:
    refused(array, r"must be uint8 of shape \(height, width, 3\) or \(height, width\) and not empty")


# --- colour, depth, alpha


@pytest.mark.parametrize("mode", ["1", "L", "CMYK", "YCbCr", "HSV", "P"])
def test_a_mode_without_alpha_is_converted_to_rgb(mode: str) -> None:
    image = photograph().convert(mode)
    same(image, image)


@pytest.mark.parametrize(
    ("mode", "format"), [("1", "PNG"), ("L", "JPEG"), ("CMYK", "JPEG"), ("CMYK", "TIFF"), ("P", "GIF")]
)
def test_a_file_without_alpha_is_converted_to_rgb(mode: str, format: str) -> None:
    data = encoded(photograph().convert(mode), format)
    opened = Image.open(io.BytesIO(data))
    assert opened.mode == mode or format == "GIF"
    same(data, opened)


def test_a_cmyk_photograph_keeps_its_colours() -> None:
    red = Image.new("RGB", (31, 23), (220, 30, 40))
    error = exact(encoded(red.convert("CMYK"), "JPEG", quality=95)).astype(int) - np.asarray(red)
    assert np.abs(error).max() < 12


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA", "RGBa"])
def test_alpha_is_laid_over_white(mode: str) -> None:
    image = photograph().convert("L").convert("RGB") if mode in ("LA",) else photograph()
    alpha = np.tile(np.array([0, 128, 255], np.uint8), (23, 11))[:, :31]
    transparent = image.copy()
    transparent.putalpha(Image.fromarray(alpha))
    if mode == "PA":
        transparent = image.quantize(64).convert("PA")
        image = transparent.convert("RGB")
        transparent.putalpha(Image.fromarray(alpha))
    else:
        transparent = transparent.convert(mode)
    share = alpha[..., None] / 255
    expected = np.asarray(image) * share + 255 * (1 - share)
    assert np.abs(exact(transparent) - expected).max() <= 2


def test_clear_pixels_are_white_in_every_file_format_that_knows_alpha() -> None:
    clear = Image.new("RGBA", (31, 23), (200, 0, 0, 0))
    for format in ("PNG", "WEBP", "TIFF", "TGA", "QOI", "GIF", "AVIF"):
        assert (exact(encoded(clear, format)) == 255).all(), format
    assert (exact(encoded(clear.convert("LA"), "PNG")) == 255).all()


@pytest.mark.parametrize("transparency", [0, b"\x00" + b"\xff" * 255], ids=["index", "bytes"])
def test_a_transparent_palette_entry_is_white(transparency: int | bytes) -> None:
    image = Image.new("P", (31, 23), 0)
    image.putpalette([200, 0, 0, 0, 0, 200])
    image.paste(1, (10, 0, 31, 23))
    pixels = exact(encoded(image, "PNG", transparency=transparency))
    assert (pixels[:, :10] == 255).all()
    assert (pixels[:, 10:] == (0, 0, 200)).all()


@pytest.mark.parametrize(("mode", "colour"), [("RGB", (10, 20, 30)), ("L", 10)])
def test_a_transparent_colour_is_white(mode: str, colour: Any) -> None:
    image = Image.new(mode, (31, 23), colour)
    image.paste(77 if mode == "L" else (7, 8, 9), (10, 0, 31, 23))
    pixels = exact(encoded(image, "PNG", transparency=colour))
    assert (pixels[:, :10] == 255).all()
    assert (pixels[:, 10:] < 100).all()


def sixteen_bit() -> np.ndarray:
    return np.linspace(0, 65535, 23 * 31).astype(np.uint16).reshape(23, 31)


@pytest.mark.parametrize("mode", ["I;16", "I;16L", "I;16B", "I;16N", "I", "F"])
def test_16_bit_grey_is_scaled_and_not_clipped(mode: str) -> None:
    values = sixteen_bit()
    order = values.astype(">u2" if mode == "I;16B" else "<u2")
    image = (
        Image.frombytes(mode, (31, 23), order.tobytes())
        if mode.startswith("I;16")
        else Image.fromarray(values.astype({"I": np.int32, "F": np.float32}[mode]))
    )
    expected = np.rint(values / 257)
    np.testing.assert_array_equal(exact(image)[..., 1], expected)


@pytest.mark.parametrize("format", ["PNG", "TIFF", "PPM", "JPEG2000"])
def test_16_bit_grey_files_are_scaled_and_not_clipped(format: str) -> None:
    data = encoded(Image.fromarray(sixteen_bit()), format)
    np.testing.assert_array_equal(exact(data)[..., 0], np.rint(sixteen_bit() / 257))


def test_a_transparent_16_bit_grey_is_white() -> None:
    values = sixteen_bit()
    data = encoded(Image.fromarray(values), "PNG", transparency=int(values[3, 4]))
    pixels = exact(data)
    assert (pixels[3, 4] == 255).all()
    assert (pixels[3, 3] < 100).all()


@pytest.mark.parametrize(
    ("array", "white"),
    [
        (np.array([[0, 51, 255]], np.int32), 255),
        (np.array([[0, 51, 256]], np.int32), 65535),
        (np.array([[0, 51, 2**31 - 1]], np.int32), 2**31 - 1),
        (np.array([[-7, 51, 255]], np.int32), 255),
        (np.array([[0, 0.2, 1]], np.float32), 1),
        (np.array([[0, 0.2, 1.5]], np.float32), 255),
        (np.array([[0, 0.2, 3e38]], np.float32), 3e38),
        (np.array([[0, 0.2, -5]], np.float32), 1),
        (np.zeros((1, 3), np.float32), 1),
    ],
)
def test_white_of_wide_grey_is_the_least_usual_range_that_holds_it(array: np.ndarray, white: float) -> None:
    expected = np.rint(array.astype(np.float64) * 255 / white).clip(0, 255)
    pixels = load_pixels(Image.fromarray(array), height=1, width=3)
    np.testing.assert_array_equal(pixels[..., 2], expected)


def test_floats_that_are_not_numbers_are_black_and_infinite_ones_white() -> None:
    array = np.array([[np.nan, np.inf, -np.inf, 0.5, 1]], np.float32)
    pixels = load_pixels(Image.fromarray(array), height=1, width=5)
    np.testing.assert_array_equal(pixels[0, :, 0], [0, 255, 0, 128, 255])


# --- orientation, frames


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


# --- what is left as it was


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


# --- the pixel limit


@pytest.mark.parametrize("format", ["PNG", "JPEG", "GIF", "TIFF", "WEBP", "BMP"])
def test_an_image_over_the_limit_is_refused_from_its_header_alone(format: str) -> None:
    data = encoded(photograph(200, 100), format)
    header = data if format in ("TIFF", "WEBP") else data[: len(data) // 2]  # TIFF's stands at the end
    error = refused(header, r"has 20,000 pixels \(200 x 100\), more than the limit of 19,999", max_pixels=19_999)
    assert (str(error).partition("; ")[2], error.reason[-6:]) == ("raise max_pixels if you trust it", "19,999")
    load_pixels(data, height=4, width=4, max_pixels=20_000)


def test_the_limit_holds_for_arrays_and_pil_images() -> None:
    refused(Image.new("RGB", (0, 5)), "has no pixels")
    refused(np.zeros((10, 10, 3), np.uint8), "more than the limit of 99", max_pixels=99)
    refused(Image.new("RGB", (10, 10)), "more than the limit of 99", max_pixels=99)


def test_the_default_limit_refuses_a_bomb_without_decoding_it() -> None:
    bomb = b"P6 20000 20000 255\n" + bytes(99)
    refused(bomb, r"has 400,000,000 pixels \(20,000 x 20,000\), more than the limit of 152,000,000")


@pytest.mark.parametrize("format", ["PNG", "JPEG", "TIFF", "WEBP", "BMP", "GIF"])
def test_only_our_limit_counts_and_pillows_neither_warns_nor_raises(
    format: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = encoded(photograph(), format)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 31 * 23 - 1 if format == "WEBP" else 100)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        exact(data)
    with pytest.raises((Image.DecompressionBombError, Image.DecompressionBombWarning)):
        Image.open(io.BytesIO(data)).load()
    assert Image.MAX_IMAGE_PIXELS in (100, 31 * 23 - 1)


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw"])
def test_a_large_palette_tiff_with_an_orientation_is_read_without_pillows_limit(
    compression: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = photograph(23, 31).convert("P")
    image.getexif()[274] = 6
    data = encoded(image, "TIFF", compression=compression, exif=image.getexif())
    expected = Image.open(io.BytesIO(data))
    expected.load()
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    same(data, expected)


# --- what is no image


@pytest.mark.parametrize("format", ["JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "JPEG2000", "AVIF"])
def test_a_truncated_file_is_refused(format: str) -> None:
    data = encoded(photograph(300, 200), format)
    refused(data[: len(data) * 2 // 3], "cannot be decoded|not an image")


def test_an_empty_input_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.jpg").touch()
    for source in (b"", bytearray(), io.BytesIO(), io.BytesIO(b"read already"), tmp_path / "empty.jpg"):
        if isinstance(source, io.BytesIO):
            source.seek(0, io.SEEK_END)
        refused(source, "is empty")


def test_text_named_like_an_image_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "photo.jpg"
    path.write_text("these are words, not pixels\n" * 50)
    error = refused(path, "is not an image of a known format, or its header is broken")
    assert error.source == str(path)
    assert error.entry is None


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "missing.jpg", tmp_path / "no" / "such" / "folder.jpg", tmp_path / "file" / "photo.jpg"):
        refused(path, "there is no such file")


def test_a_folder_is_refused(tmp_path: Path) -> None:
    refused(tmp_path, "is a folder, not an image file")
    refused("", "is a folder, not an image file")


def test_a_file_without_permission_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "secret.jpg"
    path.write_bytes(encoded(photograph(), "JPEG"))
    path.chmod(0)
    if os.access(path, os.R_OK):  # root may read everything

        def denied(*_: object) -> None:
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(Path, "open", denied)
    refused(path, "cannot be read: permission denied")
    path.chmod(stat.S_IRWXU)


def test_a_path_that_no_file_can_have_is_refused() -> None:
    refused("photo\x00.jpg", "cannot be decoded: embedded null byte|there is no such file")
    refused("x" * 5000, "cannot be read: File name too long")


def test_a_text_file_object_is_refused() -> None:
    refused(io.StringIO("words"), "cannot be decoded: a bytes-like object is required, not 'str'|binary mode")


def test_a_closed_source_is_refused() -> None:
    file, image = io.BytesIO(b"x"), Image.open(io.BytesIO(encoded(photograph(), "PNG")))
    file.close()
    image.close()
    refused(file, "closed")
    refused(image, "cannot be decoded")


@pytest.mark.parametrize("source", [None, 5, 0.5, [1, 2], {"image": 1}, object])
def test_what_is_no_image_at_all_is_refused(source: Any) -> None:
    refused(source, "is not an image: pass a path, bytes, a binary file, a PIL image or a numpy array")


@pytest.mark.parametrize(
    "error",
    [
        OSError("a\nb"),
        SyntaxError(),
        struct.error("s"),
        EOFError(),
        OverflowError("o"),
        RecursionError("r"),
        KeyError(5),
        MemoryError(),
    ],
)
def test_whatever_pillow_raises_is_one_image_error(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise error

    monkeypatch.setattr(Image.Image, "resize", broken)
    refused(photograph(), "cannot be decoded: .")


def test_an_interrupt_is_not_an_image_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Image.Image, "resize", interrupted)
    with pytest.raises(KeyboardInterrupt):
        exact(photograph())


# --- hostile input


def samples() -> dict[str, bytes]:
    image = photograph()
    palette = image.quantize(16)
    data = {format: encoded(image, format) for format in FORMATS if format != "PSD"}
    data["animation"] = encoded(
        image, "GIF", save_all=True, append_images=[Image.new("RGB", (31, 23), "red")], disposal=2
    )
    data["palette"] = encoded(palette, "PNG", transparency=3)
    data["grey 16"] = encoded(Image.fromarray(sixteen_bit()), "PNG")
    data["lzw"] = encoded(image, "TIFF", compression="tiff_lzw")
    data["progressive"] = encoded(image, "JPEG", progressive=True, exif=exif())
    return data


def exif() -> Image.Exif:
    block = Image.Exif()
    block[274] = 6
    return block


SAMPLES = samples()


def pixels_or_image_error(read: Callable[[], np.ndarray]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns of broken metadata in pictures that it then reads
        with contextlib.suppress(ImageError):
            pixels = read()
            assert pixels.shape == (8, 9, 3)
            assert pixels.dtype == np.uint8


@settings(max_examples=150, deadline=None, derandomize=True)
@given(name=st.sampled_from(sorted(SAMPLES)), share=st.floats(0, 1))
def test_any_truncation_gives_pixels_or_an_image_error(name: str, share: float) -> None:
    data = SAMPLES[name]
    cut = data[: int(len(data) * share)]
    pixels_or_image_error(lambda: load_pixels(cut, height=8, width=9, max_pixels=10_000))


@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    name=st.sampled_from(sorted(SAMPLES)),
    flips=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(1, 255)), min_size=1, max_size=8),
    near_header=st.booleans(),
)
def test_any_flipped_bytes_give_pixels_or_an_image_error(
    name: str, flips: list[tuple[float, int]], near_header: bool
) -> None:
    data = bytearray(SAMPLES[name])
    for place, mask in flips:
        data[int(place * (min(120, len(data)) if near_header else len(data)))] ^= mask
    pixels_or_image_error(lambda: load_pixels(data, height=8, width=9, max_pixels=10_000))


@settings(max_examples=100, deadline=None, derandomize=True)
@given(data=st.binary(max_size=200), name=st.sampled_from(sorted(SAMPLES)), kept=st.integers(0, 40))
def test_any_bytes_give_pixels_or_an_image_error(data: bytes, name: str, kept: int) -> None:
    pixels_or_image_error(lambda: load_pixels(SAMPLES[name][:kept] + data, height=8, width=9, max_pixels=10_000))


# --- names


def test_an_input_is_described_by_its_path_or_what_it_is() -> None:
    assert describe("photo.jpg") == "photo.jpg"
    assert describe(Path("a") / "b.jpg") == str(Path("a") / "b.jpg")
    assert describe("a\nb\udcff.jpg") == r"'a\nb\udcff.jpg'"
    assert describe("") == "''"
    assert describe(bytes(4312)) == "4,312 bytes"
    assert describe(memoryview(bytes(24))) == "24 bytes"
    assert describe(np.zeros((5, 5, 3), np.float32)) == "array (5, 5, 3) float32"
    assert describe(Image.new("L", (4, 3))) == "PIL image 4 x 3 L"
    assert describe(io.BytesIO()) == "BytesIO object"
    assert describe(None) == "NoneType object"


def test_an_open_file_is_described_by_its_name(tmp_path: Path) -> None:
    path = tmp_path / "photo.jpg"
    path.touch()
    with path.open("rb") as file:
        assert describe(file) == f"file {path}"


def test_a_callers_tiff_of_pages_of_different_sizes_goes_on_as_it_was(tmp_path: Path) -> None:
    first, second = Image.new("RGB", (9, 7), "red"), Image.new("RGB", (5, 11), "blue")
    first.save(tmp_path / "pages.tiff", save_all=True, append_images=[second])
    with Image.open(tmp_path / "pages.tiff") as pages:
        load_pixels(pages, height=4, width=4)
        pages.seek(1)
        assert (load_pixels(pages, height=4, width=4) == (0, 0, 255)).all()


@pytest.mark.parametrize("resample", sorted(RESAMPLES))
def test_an_array_of_the_asked_size_is_taken_as_it_is(resample: str) -> None:
    array = np.random.default_rng(0).integers(0, 256, (24, 31, 3), dtype=np.uint8)
    pixels = load_pixels(array, height=24, width=31, resample=resample)
    resized = Image.fromarray(array).resize((31, 24), RESAMPLES[resample])
    np.testing.assert_array_equal(pixels, np.asarray(resized))
    pixels[:] = 0
    assert array.any(), "the caller's array is its own"
