"""The quick resizer gives Pillow's pixels, nearly, and only where it is asked for."""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from engine.images import resize
from engine.images.load import RESAMPLES, load_pixels

PHOTOGRAPH = Image.open(Path(__file__).parents[3] / "samples" / "coffee.jpg").convert("RGB")
pytestmark = pytest.mark.skipif(find_spec("cykooz_resizer") is None, reason="cykooz-resizer is not installed")


def pillows(image: Image.Image, height: int, width: int, resample: str) -> np.ndarray:
    return np.asarray(image.resize((width, height), RESAMPLES[resample]))


@pytest.mark.parametrize("resample", resize.FILTERS)
@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    size=st.tuples(st.integers(20, 700), st.integers(20, 700)), height=st.integers(1, 300), width=st.integers(1, 300)
)
def test_a_photograph_is_resized_as_pillow_does_but_for_a_level(
    size: tuple[int, int], height: int, width: int, resample: str
) -> None:
    image = PHOTOGRAPH.resize(size)
    pixels = load_pixels(image, height=height, width=width, resample=resample, quick=True)
    difference = np.abs(pixels.astype(int) - pillows(image, height, width, resample))
    assert difference.mean() < 0.4
    assert difference.max() <= 16 or resample == "box"  # at a tie of two pixels either may be taken


def test_usual_photographs_differ_by_one_level_in_one_value_of_five() -> None:
    for size in ((640, 480), (500, 375), (480, 640), (224, 224)):
        image = PHOTOGRAPH.resize(size)
        pixels = load_pixels(image, height=260, width=260, quick=True)
        difference = np.abs(pixels.astype(int) - pillows(image, 260, 260, "bicubic"))
        assert (difference > 0).mean() < 0.25
        assert (difference > 1).mean() < 0.001


def test_the_quick_way_is_taken_only_where_it_is_asked_for() -> None:
    exact = load_pixels(PHOTOGRAPH, height=99, width=101)
    np.testing.assert_array_equal(exact, pillows(PHOTOGRAPH, 99, 101, "bicubic"))
    assert (load_pixels(PHOTOGRAPH, height=99, width=101, quick=True) != exact).any()


def test_without_the_package_quick_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resize, "resizer", lambda: None)
    exact = load_pixels(PHOTOGRAPH, height=99, width=101)
    np.testing.assert_array_equal(load_pixels(PHOTOGRAPH, height=99, width=101, quick=True), exact)


def test_an_image_too_large_to_be_copied_goes_pillows_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resize, "MOST_PIXELS", PHOTOGRAPH.width * PHOTOGRAPH.height - 1)
    exact = load_pixels(PHOTOGRAPH, height=99, width=101)
    np.testing.assert_array_equal(load_pixels(PHOTOGRAPH, height=99, width=101, quick=True), exact)
