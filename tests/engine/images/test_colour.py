"""Photographs in other colour spaces are captioned as sRGB; those in sRGB, or in none, are left to the last level."""

import io
import struct
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms

from engine.images import colour
from engine.images.load import load_pixels
from tests.engine.images.pictures import encoded, photograph

Points = tuple[tuple[float, float], ...]
P3: Points = ((0.68, 0.32), (0.265, 0.69), (0.15, 0.06))
ADOBE: Points = ((0.64, 0.33), (0.21, 0.71), (0.15, 0.06))
PROPHOTO: Points = ((0.7347, 0.2653), (0.1596, 0.8404), (0.0366, 0.0001))
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
D50 = (0.9642, 1.0, 0.8249)


def s15(*numbers: float) -> bytes:
    return struct.pack(f">{len(numbers)}i", *(round(65536 * number) for number in numbers))


def profile(primaries: Points, gamma: float, space: bytes = b"RGB ") -> bytes:
    """A profile of primaries under D65 (adapted to D50 by Bradford) and a gamma, written by hand; GRAY has none."""
    bradford = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
    white = np.array([0.3127 / 0.329, 1, (1 - 0.3127 - 0.329) / 0.329])
    columns = np.array([(x / y, 1, (1 - x - y) / y) for x, y in primaries]).T
    to_xyz = columns * np.linalg.solve(columns, white)
    adapted = np.linalg.inv(bradford) @ np.diag(bradford @ np.array(D50) / (bradford @ white)) @ bradford @ to_xyz
    curve = b"curv" + bytes(4) + struct.pack(">IHH", 1, round(256 * gamma), 0)
    tags = {
        b"wtpt": b"XYZ " + bytes(4) + s15(*D50),
        b"desc": b"desc" + bytes(4) + struct.pack(">I2s", 2, b"x") + bytes(78),
    }
    if space == b"GRAY":
        tags[b"kTRC"] = curve
    else:
        for channel, column in zip((b"r", b"g", b"b"), adapted.T, strict=True):
            tags[channel + b"XYZ"] = b"XYZ " + bytes(4) + s15(*column)
            tags[channel + b"TRC"] = curve
    table, data, place = struct.pack(">I", len(tags)), b"", 132 + 12 * len(tags)
    for name, content in tags.items():
        content += bytes(-len(content) % 4)
        table += name + struct.pack(">II", place + len(data), len(content))
        data += content
    header = struct.pack(">I4xI4s4s4s", place + len(data), 0x02400000, b"mntr", space, b"XYZ ") + bytes(12) + b"acsp"
    return header.ljust(68, b"\0") + s15(*D50) + bytes(48) + table + data


def scene() -> Image.Image:
    """Colours that all of these spaces can show."""
    return Image.fromarray((np.asarray(photograph(64, 48)) * 0.6 + 50).astype(np.uint8))


def rendered(image: Image.Image, space: bytes) -> Image.Image:
    """The same colours in another space."""
    source, target = ImageCms.createProfile("sRGB"), ImageCms.ImageCmsProfile(io.BytesIO(space))
    shown = ImageCms.profileToProfile(image, source, target, outputMode="RGB")
    assert shown is not None
    del shown.info["icc_profile"]
    return shown


def difference(data: Any, image: Image.Image, **options: Any) -> float:
    width, height = image.size
    pixels = load_pixels(data, height=height, width=width, **options)
    return float(np.abs(pixels.astype(int) - np.asarray(image)).mean())


@pytest.mark.parametrize(
    ("primaries", "gamma", "least"),
    [(P3, 2.2, 3), (ADOBE, 2.2, 3), (PROPHOTO, 1.8, 12)],
    ids=["P3", "Adobe", "ProPhoto"],
)
@pytest.mark.parametrize("format", ["PNG", "TIFF", "JPEG", "WEBP"])
@pytest.mark.parametrize("quick", [False, True])
def test_a_photograph_looks_the_same_in_whatever_space_it_is_stored(
    primaries: Points, gamma: float, least: float, format: str, quick: bool
) -> None:
    space = profile(primaries, gamma)
    ways: dict[str, dict[str, Any]] = {"JPEG": {"quality": 100, "subsampling": 0}, "WEBP": {"lossless": True}}
    options = ways.get(format, {})
    stored = rendered(scene(), space)
    assert difference(encoded(stored, format, icc_profile=space, **options), scene(), quick=quick) < 1.5
    assert difference(encoded(stored, format, **options), scene(), quick=quick) > least  # without its profile


def test_a_pil_image_is_converted_as_its_file_is() -> None:
    space = profile(P3, 2.2)
    data = encoded(rendered(scene(), space), "PNG", icc_profile=space)
    expected = load_pixels(data, height=20, width=30)
    np.testing.assert_array_equal(load_pixels(Image.open(io.BytesIO(data)), height=20, width=30), expected)


@pytest.mark.parametrize("space", [SRGB, SRGB.replace(b"desc", b"dsc2")], ids=["sRGB", "no name"])
def test_srgb_by_whatever_profile_is_left_to_the_last_level(space: bytes) -> None:
    assert colour.conversion({"icc_profile": space}, "RGB") is None
    np.testing.assert_array_equal(
        load_pixels(encoded(photograph(), "PNG", icc_profile=space), height=9, width=9),
        load_pixels(photograph(), height=9, width=9),
    )


def test_a_profile_is_looked_into_once(monkeypatch: pytest.MonkeyPatch) -> None:
    space = profile(ADOBE, 2.1)
    first = colour.conversion({"icc_profile": space}, "RGB")
    monkeypatch.setattr(ImageCms, "ImageCmsProfile", lambda *_: pytest.fail("opened again"))
    assert first is not None
    assert colour.conversion({"icc_profile": bytes(bytearray(space))}, "RGB") is first


def test_a_large_profile_is_used_and_not_remembered() -> None:
    space = profile(P3, 2.2)
    large = space + bytes(colour.KEPT_BYTES)
    large = len(large).to_bytes(4) + large[4:]
    first, second = (colour.conversion({"icc_profile": large}, "RGB") for _ in range(2))
    assert first is not second
    data = encoded(rendered(scene(), space), "TIFF", icc_profile=large)
    assert difference(data, scene()) < 1.5


def test_without_colour_management_a_photograph_is_read_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: object) -> None:
        raise ImportError("The _imagingcms C module is not installed")  # as Pillow raises it: late

    monkeypatch.setattr(ImageCms, "core", SimpleNamespace(profile_frombytes=missing, CmsProfile=()))
    data = encoded(photograph(), "TIFF", icc_profile=profile(P3, 2.3))
    np.testing.assert_array_equal(load_pixels(data, height=23, width=31), np.asarray(photograph()))


@pytest.mark.parametrize(
    "broken",
    [
        b"x",
        bytes(5000),
        SRGB[:200],
        profile(P3, 2.2)[:300],
        profile(P3, 2.2).replace(b"RGB ", b"CMYK"),
        profile(P3, 2.2, b"GRAY"),
        profile(P3, 2.2) + bytes(colour.MOST_BYTES),
    ],
    ids=["x", "zeros", "cut", "half", "CMYK", "grey", "huge"],
)
def test_a_broken_or_foreign_profile_is_passed_over(broken: bytes) -> None:
    np.testing.assert_array_equal(
        load_pixels(encoded(photograph(), "TIFF", icc_profile=broken), height=9, width=9),
        load_pixels(photograph(), height=9, width=9),
    )


def test_a_grey_photograph_is_converted_by_its_grey_profile() -> None:
    dark = profile(P3, 1.0, b"GRAY")  # linear light
    values = np.arange(256, dtype=np.uint8).reshape(16, 16)
    pixels = load_pixels(encoded(Image.fromarray(values), "PNG", icc_profile=dark), height=16, width=16)
    light = values / 255
    signal = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    assert np.abs(pixels - 255 * signal[..., None])[values > 20].max() < 2  # below, lcms interpolates


def test_a_grey_photograph_with_a_profile_of_colours_is_converted_by_it() -> None:
    space = profile(P3, 1.8)
    grey = scene().convert("L")
    stored = rendered(grey.convert("RGB"), space).convert("L")
    assert difference(encoded(stored, "JPEG", quality=100, icc_profile=space), grey.convert("RGB")) < 1.5


def test_alpha_stays_white_in_every_space() -> None:
    clear = Image.new("RGBA", (16, 16), (200, 0, 0, 0))
    pixels = load_pixels(encoded(clear, "PNG", icc_profile=profile(ADOBE, 2.2)), height=8, width=8)
    assert (pixels >= 254).all()


@pytest.mark.parametrize(
    ("points", "converted"),
    [
        ({"color_primaries": 1, "transfer_characteristic": 13}, False),
        ({"color_primaries": 2, "transfer_characteristic": 2}, False),
        ({"color_primaries": 12, "transfer_characteristic": 13}, True),
        ({"color_primaries": 9, "transfer_characteristic": 16}, True),
        ({"color_primaries": 9, "transfer_characteristic": 18}, True),
        ({}, False),
    ],
)
def test_code_points_of_heic_count(points: dict[str, int], converted: bool) -> None:
    change = colour.conversion({"nclx_profile": points}, "RGB")
    assert (change is not None) is converted
    if change:
        shown = np.asarray(change(Image.new("RGB", (2, 2), (255, 255, 255))))
        assert (shown == 255).all()
        assert (np.asarray(change(Image.new("RGB", (2, 2)))) == 0).all()


def test_code_points_and_a_profile_that_say_the_same_give_the_same() -> None:
    by_points = colour.conversion({"nclx_profile": {"color_primaries": 12, "transfer_characteristic": 4}}, "RGB")
    by_profile = colour.conversion({"icc_profile": profile(P3, 563 / 256)}, "RGB")
    assert by_points is not None
    assert by_profile is not None
    one, other = (np.asarray(change(photograph(64, 64))).astype(int) for change in (by_points, by_profile))
    assert np.abs(one - other)[np.asarray(photograph(64, 64)) > 30].max() <= 2


def test_a_camera_set_to_adobe_rgb_says_so_in_exif_alone() -> None:
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0xA001] = 65535
    exif.get_ifd(0x8769)[0xA005] = {1: "R03"}
    stored = rendered(scene(), profile(ADOBE, 563 / 256))
    data = encoded(stored, "JPEG", quality=100, subsampling=0, exif=exif)
    assert b"R03" in data
    assert difference(data, scene()) < 1.5


def test_a_png_that_only_says_its_gamma_is_left_alone() -> None:
    from PIL.PngImagePlugin import PngInfo

    chunks = PngInfo()
    chunks.add(b"gAMA", struct.pack(">I", 100_000))
    data = encoded(photograph(), "PNG", pnginfo=chunks)
    np.testing.assert_array_equal(load_pixels(data, height=23, width=31), np.asarray(photograph()))


def print_profile() -> bytes:
    """A CMYK profile of a table, as those of presses are: the Lab of paper and of each ink on each other."""
    inks = {
        (0, 0, 0): (100, 0, 0),
        (1, 0, 0): (55, -37, -50),
        (0, 1, 0): (48, 74, -3),
        (0, 0, 1): (89, -5, 93),
        (1, 1, 0): (24, 17, -46),
        (1, 0, 1): (50, -65, 27),
        (0, 1, 1): (47, 68, 48),
        (1, 1, 1): (23, 0, 0),
    }
    black = (16, 0, 0)
    corners = [inks[c, m, y] if not k else black for c in (0, 1) for m in (0, 1) for y in (0, 1) for k in (0, 1)]
    table = bytes(round(value) for light, a, b in corners for value in (light * 2.55, a + 128, b + 128))
    ramp = bytes(range(256))
    lut = b"mft1" + bytes(4) + bytes([4, 3, 2, 0]) + s15(1, 0, 0, 0, 1, 0, 0, 0, 1) + 4 * ramp + table + 3 * ramp
    white = b"XYZ " + bytes(4) + s15(*D50)
    places = 132 + 3 * 12
    tags = (b"A2B0", places, lut), (b"A2B1", places, lut), (b"wtpt", places + len(lut), white)
    listed = b"".join(name + struct.pack(">II", place, len(content)) for name, place, content in tags)
    size = places + len(lut) + len(white)
    header = struct.pack(">I4xI4s4s4s", size, 0x02400000, b"prtr", b"CMYK", b"Lab ") + bytes(12) + b"acsp"
    return header.ljust(68, b"\0") + s15(*D50) + bytes(48) + struct.pack(">I", 3) + listed + lut + white


@pytest.mark.parametrize("format", ["TIFF", "JPEG"])
@pytest.mark.parametrize("quick", [False, True])
def test_a_print_shows_its_inks(format: str, quick: bool) -> None:
    inks = ((0, 0, 0, 0), (255, 0, 0, 0), (0, 255, 0, 0), (0, 0, 255, 0), (0, 0, 0, 255))
    for ink, shown in zip(
        inks, ((255, 255, 255), (0, 158, 224), (227, 0, 122), (255, 237, 0), (40, 40, 40)), strict=True
    ):
        options = {"quality": 100} if format == "JPEG" else {}
        data = encoded(Image.new("CMYK", (32, 32), ink), format, icc_profile=print_profile(), **options)
        pixels = load_pixels(data, height=8, width=8, quick=quick)
        assert np.abs(pixels.astype(int) - shown).max() < 25, (ink, pixels[0, 0])
