"""Which files are read: formats by their first bytes, those of phones and cameras with the extra photos."""

import importlib.util
import io
import itertools
import struct
import subprocess
import sys
import time
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from engine.errors import ImageError, OptionsError
from engine.images.formats import FORMATS, image_suffixes
from engine.images.jxl import JxlFile
from engine.images.load import load_pixels
from engine.images.memory import Budget
from tests.engine.images.test_load import encoded, photograph

PHOTO_FILES = Path(__file__).parents[4] / "shared" / "data" / "photo-files"
needs_heif = pytest.mark.skipif(
    not (find_spec("pi_heif") and find_spec("pillow_heif")),
    reason="pi_heif reads HEIC and pillow_heif writes it: not installed",
)
needs_jxl = pytest.mark.skipif(find_spec("pillow_jxl") is None, reason="pillow_jxl is not installed")
STORED = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}  # EXIF orientation -> how the scene is then stored


def reason(source: Any, **options: Any) -> str:
    with pytest.raises(ImageError) as caught:
        load_pixels(source, height=8, width=8, **options)
    assert "\n" not in caught.value.explanation
    return caught.value.explanation


def near(data: bytes, image: Image.Image, levels: float = 2.0) -> None:
    """Asserts that a file shows an image, lossless but for its colour space."""
    width, height = image.size
    difference = load_pixels(data, height=height, width=width).astype(int) - np.asarray(image.convert("RGB"))
    assert np.abs(difference).mean() < levels


def exif(orientation: int) -> bytes:
    block = Image.Exif()
    block[274] = orientation
    return block.tobytes()


# --- which formats


@pytest.mark.parametrize("format", ["TGA", "QOI", "PCX", "SGI", "DDS", "ICO", "ICNS"])
def test_formats_that_photographs_do_not_come_in_are_refused_and_read_where_they_are_named(format: str) -> None:
    data = encoded(photograph(64, 64), format)
    told = reason(data)
    assert told == (
        f"is a file in the format {format}, which is not read by default; add it to formats if you trust it"
        if format != "TGA"  # which nothing at its beginning tells
        else "is not an image of a known format, or its header is broken"
    )
    assert load_pixels(data, height=64, width=64, formats=[*FORMATS, format]).shape == (64, 64, 3)


def test_a_cursor_is_told_by_its_name() -> None:
    data = bytearray(encoded(photograph(64, 64), "ICO", sizes=[(32, 32)]))
    data[2] = 2
    assert reason(bytes(data)).startswith("is a file in the format CUR, which is not read by default")


@pytest.mark.parametrize("format", FORMATS)
def test_formats_may_be_narrowed(format: str) -> None:
    if format in ("HEIF", "JXL") and find_spec({"HEIF": "pillow_heif", "JXL": "pillow_jxl"}[format]) is None:
        pytest.skip(f"nothing here writes {format}")
    if format == "JXL":
        import pillow_jxl  # noqa: F401 - registers what writes it
    if format == "PSD":
        data = b"8BPS" + bytes(99)
    else:
        data = heif(photograph()) if format == "HEIF" else encoded(photograph(), format)
    others = [name for name in FORMATS if name != format]
    said = (
        f"is a file in the format {format}, which is not among the formats to read; add it to formats if you trust it"
    )
    assert reason(data, formats=others) == said


@pytest.mark.parametrize(
    ("format", "prefix"), [("EPS", b"%!PS-Adobe-3.0 EPSF-3.0\n"), ("WMF", b"\xd7\xcd\xc6\x9a\0\0")]
)
def test_what_an_interpreter_would_run_is_never_read(format: str, prefix: bytes) -> None:
    assert (
        reason(prefix + bytes(200))
        == f"is a file in the format {format}, which is never read: it may contain a program"
    )
    with pytest.raises(OptionsError, match=f"'{format}' is never read, since it may contain a program; choose from"):
        load_pixels(b"", height=8, width=8, formats=["JPEG", format])


@pytest.mark.parametrize("formats", [["jpeg"], "JPG", ["RAW"], [""]])
def test_a_format_that_nobody_reads_is_an_options_error(formats: Any) -> None:
    with pytest.raises(OptionsError, match="is not a format that Pillow reads; choose from AVIF, "):
        load_pixels(photograph(), height=8, width=8, formats=formats)


@pytest.mark.parametrize("formats", [None, (), [], 7, [["JPEG"]]])
def test_formats_have_to_name_one(formats: Any) -> None:
    said = f"formats={formats!r}: formats must be one or more names, such as 'JPEG'"
    with pytest.raises(OptionsError) as caught:
        load_pixels(photograph(), height=8, width=8, formats=formats)
    assert str(caught.value) == said


def test_all_formats_are_in_capitals_as_command_lines_take_them() -> None:
    Image.init()
    assert all(name.isupper() for name in (*FORMATS, *Image.ID))


def test_a_file_too_long_to_be_held_is_refused_with_advice(monkeypatch: pytest.MonkeyPatch) -> None:
    data = encoded(photograph(200, 100), "WEBP", lossless=True)
    monkeypatch.setattr("engine.images.load.DECODING", Budget(1000))
    held = f"has {len(data):,} bytes, more than the limit of 1,000 for files that are read whole"
    assert reason(data, max_pixels=100) == f"{held}; raise max_pixels if you trust it"
    load_pixels(data, height=8, width=8, max_pixels=100 * len(data))


def test_a_broken_file_of_a_usual_format_is_told_as_broken() -> None:
    assert "not an image of a known format, or its header is broken" in reason(b"\xff\xd8\xff\xd9")
    assert "not an image of a known format, or its header is broken" in reason(b"\x89PNG\r\n\x1a\n" + bytes(50))


def test_a_video_is_no_photograph() -> None:
    assert "not an image of a known format" in reason(b"\0\0\0\x18ftypmp42\0\0\0\0isommp42" + bytes(99))


def test_names_of_files_follow_the_formats() -> None:
    assert {".jpg", ".heic", ".hif", ".jxl", ".avif", ".webp"} <= image_suffixes()
    assert not {".tga", ".ico", ".eps", ".txt"} & image_suffixes()
    assert image_suffixes(["TGA"]) - image_suffixes() == {".tga", ".icb", ".vda", ".vst"}


# --- without the packages


@pytest.mark.parametrize(
    ("data", "shown"),
    [
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(99), "HEIC/HEIF"),
        (b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic" + bytes(99), "HEIC/HEIF"),
        (b"\xff\x0a" + bytes(99), "JPEG XL"),
        (b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(99), "JPEG XL"),
    ],
)
def test_without_the_extra_the_format_and_the_extra_are_named(
    data: bytes, shown: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    how = "run python -m pip install '.[photos]' in a checkout"
    said = f"is a {shown} file, which needs the extra photos; {how}"
    assert reason(data) == said


def test_neither_package_nor_colour_management_is_imported_before_it_is_needed() -> None:
    code = (
        "import sys, engine, PIL.Image as I, numpy as np; from engine.images.load import load_pixels; "
        "load_pixels(I.new('RGB', (9, 9)), height=8, width=8); "
        "print({'pi_heif', 'pillow_jxl', 'PIL.ImageCms'} & sys.modules.keys())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


# --- HEIC


def heif(image: Image.Image, **options: Any) -> bytes:
    import pillow_heif

    file = io.BytesIO()
    pillow_heif.from_pillow(image).save(file, quality=-1, chroma=444, **options)
    return file.getvalue()


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


@needs_heif
@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L"])
def test_a_heic_photograph_is_read(mode: str) -> None:
    image = photograph().convert(mode)
    if mode == "RGBA":
        image.putalpha(photograph().getchannel(1))
    shown = load_pixels(image, height=23, width=31)
    near(heif(image), Image.fromarray(shown))


@needs_heif
@pytest.mark.parametrize("orientation", sorted(STORED))
def test_a_heic_photograph_is_turned_once_though_exif_says_it_too(orientation: int) -> None:
    data = heif_as_taken(photograph().transpose(STORED[orientation]), orientation)
    assert b"irot" in data or b"imir" in data
    assert exif(orientation).removeprefix(b"Exif\0\0") in data
    near(data, photograph())


@needs_heif
def test_what_exif_alone_says_of_a_heic_photograph_does_not_count() -> None:
    data = bytearray(heif_as_taken(photograph(), 3))
    data[data.index(b"irot") + 4] = 0  # a quarter of a turn, none of them
    near(bytes(data), photograph())


@needs_heif
def test_the_primary_image_of_a_burst_is_the_photograph() -> None:
    import pillow_heif

    burst = pillow_heif.from_pillow(Image.new("RGB", (40, 40), "red"))
    burst.add_from_pillow(photograph())
    burst.add_from_pillow(Image.new("RGB", (64, 64), "blue"))
    file = io.BytesIO()
    burst.save(file, quality=-1, chroma=444, primary_index=1)
    near(file.getvalue(), photograph())


@needs_heif
def test_ten_bits_become_eight() -> None:
    import pillow_heif

    values = np.asarray(photograph()).astype(np.uint16) * 257
    file = io.BytesIO()
    pillow_heif.from_bytes("RGB;16", (31, 23), values.tobytes()).save(file, quality=-1, chroma=444)
    assert pillow_heif.open_heif(file.getvalue(), convert_hdr_to_8bit=False).info["bit_depth"] == 10
    near(file.getvalue(), photograph())


@needs_heif
def test_a_long_heic_is_read() -> None:
    data = heif(photograph())
    long = data + struct.pack(">I4s", 8 + 10_000_000, b"mpvd") + bytes(10_000_000)
    np.testing.assert_array_equal(load_pixels(data, height=9, width=9), load_pixels(long, height=9, width=9))


@needs_heif
def test_a_heic_over_the_limit_is_refused_before_its_pixels_are_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    from pi_heif.heif import HeifImage

    data = heif(photograph(200, 100))
    monkeypatch.setattr(HeifImage, "load", lambda self: pytest.fail("decoded"))
    assert "has 20,000 pixels (200 x 100), more than the limit of 19,999" in reason(data, max_pixels=19_999)


@needs_heif
def test_a_cut_heic_is_refused() -> None:
    data = heif(photograph(200, 150))
    for share in (0.001, 0.01, 0.1, 0.5, 0.99):
        reason(data[: max(8, int(share * len(data)))])


@needs_heif
def test_reading_heic_leaves_the_pillow_of_others_as_it_is() -> None:
    code = (
        "import sys; from PIL import Image; from engine.images.load import load_pixels; "
        "load_pixels(sys.stdin.buffer, height=8, width=8); print('HEIF' in Image.OPEN)"
    )
    done = subprocess.run([sys.executable, "-c", code], input=heif(photograph()), capture_output=True, check=True)
    assert done.stdout.strip() == b"False"


@pytest.mark.skipif(not PHOTO_FILES.is_dir(), reason="the files of phones lie beside the project where it is made")
@pytest.mark.parametrize("name", ["samplefilehub.heif", "coffee.jxl"])
def test_files_of_others_are_read(name: str) -> None:
    pytest.importorskip("pi_heif" if name.endswith("heif") else "pillow_jxl", reason="needs the extra photos")
    assert np.ptp(load_pixels(PHOTO_FILES / name, height=64, width=64)) > 200


# --- JPEG XL


def jxl(image: Image.Image, **options: Any) -> bytes:
    import pillow_jxl  # noqa: F401 - registers what writes it

    return encoded(image, "JXL", **{"lossless": True, **options})


@needs_jxl
@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA"])
def test_a_jpeg_xl_photograph_is_read(mode: str) -> None:
    image = photograph().convert(mode)
    if mode in ("RGBA", "LA"):
        image.putalpha(photograph().getchannel(1))
    np.testing.assert_array_equal(load_pixels(jxl(image), height=23, width=31), load_pixels(image, height=23, width=31))


@needs_jxl
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


@needs_jxl
@pytest.mark.parametrize("container", [False, True])
@pytest.mark.parametrize(
    "size",
    [(1, 1), (8, 8), (256, 256), (264, 256), (31, 23), (512, 513), (640, 480), (1600, 900), (9000, 3), (700, 350)],
)
def test_the_size_of_a_jpeg_xl_is_known_before_it_is_decoded(size: tuple[int, int], container: bool) -> None:
    data = jxl(Image.new("RGB", size), use_container=container, effort=1)
    assert JxlFile(io.BytesIO(data)).size == size


@needs_jxl
def test_a_jpeg_xl_over_the_limit_is_refused_before_its_pixels_are_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    data = jxl(photograph(200, 100))
    monkeypatch.setattr(JxlFile, "decode", lambda self: pytest.fail("decoded"))
    assert "has 20,000 pixels (200 x 100), more than the limit of 19,999" in reason(data, max_pixels=19_999)


@needs_jxl
def test_sixteen_bits_of_grey_go_by_the_light_that_the_file_says() -> None:
    values = np.linspace(0, 65535, 23 * 31).astype(np.uint16).reshape(23, 31)
    pixels = load_pixels(jxl(Image.fromarray(values)), height=23, width=31)  # written as linear light
    light = values / 65535
    signal = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    dark = light < 0.05  # where 8 bits of linear light tell little apart
    assert np.abs(pixels[..., 1] - 255 * signal)[~dark].max() < 4


@needs_jxl
def test_an_animated_jpeg_xl_is_refused() -> None:
    still = jxl(Image.new("RGB", (8, 8)))
    # small, 1/1 of 8, not all default, extra fields: orientation 1, no size, no preview, an animation
    bits = "1" + "00000" + "100" + "0" + "1" + "000" + "0" + "0" + "1"
    header = int(bits[::-1], 2).to_bytes(4, "little")
    assert "is an animated JPEG XL file" in reason(still[:2] + header + still[6:])


@needs_jxl
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


@needs_jxl
def test_a_jpeg_xl_in_parts_is_read() -> None:
    codestream = jxl(photograph(), use_container=False)
    for cuts in ((), (3,), (1, 2, 3, 4, 5), (40, 60)):
        pixels = load_pixels(container(*parts(codestream, *cuts)), height=23, width=31)
        np.testing.assert_array_equal(pixels, np.asarray(photograph()))


@needs_jxl
def test_a_jpeg_xl_with_two_codestreams_is_refused_before_either_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    small, large = (jxl(Image.new("RGB", (side, side)), use_container=False) for side in (8, 3000))
    monkeypatch.setattr(JxlFile, "decode", lambda self: pytest.fail("decoded"))
    told, bomb = box(b"jxlc", small), box(b"jxlc", large)
    for boxes in ([*parts(large), told], [told, *parts(large)], [bomb, told], [*parts(large, 20), told]):
        said = reason(container(*boxes), max_pixels=64)
        assert said == "is not an image of a known format, or its header is broken"


@needs_jxl
def test_a_jpeg_xl_that_decodes_to_another_size_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.images.jxl._Bits.size", lambda *_: (8, 8))
    assert "another size than the header says" in reason(jxl(photograph()))


@needs_jxl
def test_a_container_of_millions_of_boxes_is_refused_at_once() -> None:
    began = time.process_time()
    data = container(*parts(jxl(photograph(), use_container=False)), 3_000_000 * box(b"free", b""))
    assert reason(data) == "is not an image of a known format, or its header is broken"
    assert time.process_time() - began < 0.7
