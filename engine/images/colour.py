"""Converts pixels from a file's colour space to sRGB, which the model expects. Owns colour profiles; decodes nothing.

The pixels are already resized, a few tens of thousands for any photograph, so the cost is the same for all. It uses
ICC profiles, the code points of HEIC (H.273) and the "R03" of cameras set to Adobe RGB, but not a PNG's gAMA, cHRM and
cICP: browsers disagree about the first two, and Pillow does not expose the last.
Broken and unknown profiles are ignored: the image is captioned as it is.
"""

import io
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import numpy as np
from PIL import Image

Conversion = Callable[[Image.Image], Image.Image]
"""Takes an image in RGB (in CMYK where `conversion` was told so) and returns it in RGB, as sRGB."""
MOST_BYTES = 4_000_000  # largest profile; those of printers have up to 3 MB
KEPT_BYTES = 256_000  # largest profile that is cached (at most 32 are): those of cameras and screens have a few kB
NEAR = 2  # levels; a profile that changes no colour by more counts as sRGB
GREY = ("1", "L", "LA", "La", "I", "F")  # modes; those of 16 bits begin with I;
KINDS = {"GRAY": "L", "RGB": "RGB", "CMYK": "CMYK"}  # colour space of a profile -> the mode that it converts

Points = tuple[tuple[float, float], tuple[float, float], tuple[float, float]]
SRGB: Points = ((0.64, 0.33), (0.3, 0.6), (0.15, 0.06))  # red, green, blue in x, y
PRIMARIES: dict[Any, Points] = {
    9: ((0.708, 0.292), (0.17, 0.797), (0.131, 0.046)),  # BT.2020
    12: ((0.68, 0.32), (0.265, 0.69), (0.15, 0.06)),  # Display P3
}  # by H.273's number; the others are those of sRGB, or visually the same
ADOBE: Points = ((0.64, 0.33), (0.21, 0.71), (0.15, 0.06))
WHITE = (0.3127, 0.329)  # D65
PAPER = 203  # nits of white paper in HDR (BT.2408)


def conversion(info: Mapping[Any, Any], mode: str) -> Conversion | None:
    """Returns the conversion to sRGB for an image with this `info`, once it is RGB; None if none is needed.

    mode: the image's; if it is CMYK, the conversion takes CMYK.
    """
    profile = info.get("icc_profile")
    if isinstance(profile, bytes) and profile:
        spaces = ("CMYK",) if mode == "CMYK" else ("GRAY", "RGB") if mode in GREY or mode[:2] == "I;" else ("RGB",)
        if len(profile) > MOST_BYTES:
            return None
        return (_by_icc if len(profile) <= KEPT_BYTES else _by_icc.__wrapped__)(profile, spaces)
    if isinstance(points := info.get("nclx_profile"), Mapping):
        primaries, transfer = points.get("color_primaries"), points.get("transfer_characteristic")
        return _by_points(PRIMARIES.get(primaries, SRGB), CURVES.get(transfer, _srgb))
    if isinstance(exif := info.get("exif"), bytes) and b"R03\x00" in exif:
        return _by_points(ADOBE, _gamma)
    return None


@lru_cache(32)
def _by_icc(profile: bytes, spaces: tuple[str, ...]) -> Conversion | None:
    """Returns the conversion from a profile of one of these spaces; cached, since a camera's photographs share one."""
    from PIL import ImageCms  # most photographs do not need it

    def convert(image: Image.Image) -> Image.Image:
        given = image.getchannel(0) if kind == "L" and image.mode != "L" else image
        converted = ImageCms.applyTransform(given, transform)
        assert converted is not None, "not in place"
        return converted

    try:
        opened = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if (space := opened.profile.xcolor_space.strip()) not in spaces:
            return None
        kind = KINDS[space]
        # Relative colorimetric with black point compensation, as image editors do: colours that a screen can show
        # stay what they are, and the black of a print is black. No cache within: threads share the transform.
        intent, flags = ImageCms.Intent.RELATIVE_COLORIMETRIC, ImageCms.Flags.BLACKPOINTCOMPENSATION
        flags |= ImageCms.Flags.NOCACHE
        transform = ImageCms.buildTransform(opened, ImageCms.createProfile("sRGB"), kind, "RGB", intent, flags)
    except (ImageCms.PyCMSError, OSError, ImportError):  # whatever is wrong with the profile, the image is usable
        return None  # also if Pillow was built without colour management
    if kind != "CMYK":
        levels = np.arange(0, 256, 17 if kind == "RGB" else 1, dtype=np.uint8)
        channels = np.meshgrid(levels, levels, levels) if kind == "RGB" else 3 * [levels]
        before = np.stack(channels, axis=-1).reshape(16, -1, 3)  # many colours, or all greys
        moved = np.asarray(convert(Image.fromarray(before))).astype(int) - before
        if np.abs(moved).max() <= NEAR:
            return None
    return convert


@lru_cache(16)
def _by_points(primaries: Points, curve: "Curve") -> Conversion | None:
    if primaries is SRGB and curve is _srgb:
        return None
    matrix = np.linalg.inv(_to_xyz(SRGB)) @ _to_xyz(primaries)
    light = curve(np.arange(256) / 255).astype(np.float32)  # of each level

    def convert(image: Image.Image) -> Image.Image:
        linear = light[np.asarray(image)] @ matrix.T.astype(np.float32)
        linear = linear.clip(0, 1)
        signal = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
        return Image.fromarray(np.rint(255 * signal).astype(np.uint8))

    return convert


def _to_xyz(primaries: Points) -> np.ndarray:
    """Returns the matrix from linear RGB to XYZ under D65."""
    columns = np.array([(x / y, 1, (1 - x - y) / y) for x, y in primaries]).T
    x, y = WHITE
    scales: np.ndarray = np.linalg.solve(columns, np.array([x / y, 1, (1 - x - y) / y]))
    matrix: np.ndarray = columns * scales
    return matrix


Curve = Callable[[np.ndarray], np.ndarray]
"""From a signal, 0 to 1, to light; 1 is white."""


def _srgb(signal: np.ndarray) -> np.ndarray:
    light: np.ndarray = np.where(signal <= 0.04045, signal / 12.92, ((signal + 0.055) / 1.055) ** 2.4)
    return light


def _gamma(signal: np.ndarray) -> np.ndarray:
    light: np.ndarray = signal ** (563 / 256)
    return light


def _pq(signal: np.ndarray) -> np.ndarray:
    """SMPTE ST 2084: anything brighter than paper becomes white."""
    power = signal ** (32 / 2523)
    light: np.ndarray = 10000 * ((power - 3424 / 4096).clip(0) / (2413 / 128 - 2392 / 128 * power)) ** (8192 / 1305)
    return light / PAPER


def _hlg(signal: np.ndarray) -> np.ndarray:
    """BT.2100's HLG on a screen of 1,000 nits."""
    scene = np.where(signal <= 0.5, signal**2 / 3, (np.exp((signal - 0.55991073) / 0.17883277) + 0.28466892) / 12)
    nits: np.ndarray = 1000 * scene**1.2
    return nits / PAPER


CURVES: dict[Any, Curve] = {4: _gamma, 16: _pq, 18: _hlg}  # by H.273's number; the others look like sRGB's
