"""Which files are read: formats by their first bytes, those of phones and cameras with the extra photos."""

import importlib.util
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from engine.errors import OptionsError
from engine.images.formats import FORMATS, image_suffixes
from engine.images.load import load_pixels
from engine.images.memory import Budget
from tests.engine.images.pictures import encoded, heif, photograph, reason

PHOTO_FILES = Path(__file__).parents[4] / "shared" / "data" / "photo-files"
# --- which formats


@pytest.mark.parametrize("format", ["TGA", "QOI", "PCX", "SGI", "DDS", "ICO", "ICNS"])
def test_formats_that_photographs_do_not_come_in_are_refused_and_read_where_they_are_named(format: str) -> None:
    data = encoded(photograph(64, 64), format)
    told = f"is a file in the format {format}, which is not read by default; add it to formats if you trust it"
    if format == "TGA":  # which nothing at its beginning tells
        told = "is not an image of a known format, or its header is broken; "
        told += "if other programs show it, save it as JPEG with one of them"
    assert reason(data) == told
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


@pytest.mark.skipif(not PHOTO_FILES.is_dir(), reason="the files of phones lie beside the project where it is made")
@pytest.mark.parametrize("name", ["samplefilehub.heif", "coffee.jxl"])
def test_files_of_others_are_read(name: str) -> None:
    pytest.importorskip("pi_heif" if name.endswith("heif") else "pillow_jxl", reason="needs the extra photos")
    assert np.ptp(load_pixels(PHOTO_FILES / name, height=64, width=64)) > 200
