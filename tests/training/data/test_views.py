"""Laws of views: the same each time, each another, and never anything but the photograph."""

import io

import numpy as np
import pytest
from PIL import Image

from engine.bundle.manifest import ImageSpec
from engine.errors import ImageError
from engine.images.load import load_pixels
from training.data.views import AREA, View, training_views

IMAGE = ImageSpec(40, 48, (127.0,) * 3, (128.0,) * 3)


def encoded(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="module")
def photograph() -> bytes:
    """Column and row in red and green, so that a pixel says where in the photograph it lies."""
    columns, rows = np.meshgrid(np.linspace(0, 255, 300), np.linspace(0, 255, 200))
    return encoded(np.stack([columns, rows, np.full_like(rows, 90)], axis=2).astype(np.uint8))


def test_a_view_depends_on_its_number_and_the_images_name_alone(photograph: bytes) -> None:
    first = View(jitter=3).pixels("a.jpg", photograph, IMAGE)
    np.testing.assert_array_equal(View(jitter=3).pixels("a.jpg", photograph, IMAGE), first)
    assert (View(jitter=4).pixels("a.jpg", photograph, IMAGE) != first).any()
    assert (View(jitter=3).pixels("b.jpg", photograph, IMAGE) != first).any()


def test_views_are_the_encoders_size_and_a_share_of_the_photograph(photograph: bytes) -> None:
    areas, mirrored = [], 0
    for number in range(1, 41):
        pixels = View(jitter=number).pixels("a.jpg", photograph, IMAGE)
        assert pixels.shape == (40, 48, 3)
        assert pixels.dtype == np.uint8
        red, green = pixels[..., 0].astype(float), pixels[..., 1].astype(float)
        mirrored += red[:, 0].mean() > red[:, -1].mean()
        assert green[0].mean() < green[-1].mean()  # never upside down
        # Contrast and colour stretch values by at most 1.44, so that ranges tell the crop only roughly.
        areas.append(np.ptp(red[20]) * np.ptp(green[:, 24]) / 255**2)
    assert 10 < mirrored < 30
    assert 0.75 * AREA[0] * 0.6 < np.mean(areas) < 1.1


def test_colour_and_light_stay_within_their_limits() -> None:
    grey = encoded(np.full((60, 60, 3), 120, np.uint8))
    means = [View(jitter=number).pixels("a.jpg", grey, IMAGE).mean() for number in range(1, 60)]
    assert min(means) >= 120 * 0.8 - 1.5
    assert max(means) <= 120 * 1.2 + 1.5
    assert np.ptp(means) > 20


def test_plain_and_mirrored_views_are_the_engines_pixels(photograph: bytes) -> None:
    pixels = load_pixels(photograph, height=40, width=48)
    np.testing.assert_array_equal(View().pixels("a.jpg", photograph, IMAGE), pixels)
    np.testing.assert_array_equal(View(mirrored=True).pixels("a.jpg", photograph, IMAGE), pixels[:, ::-1])


def test_a_run_trains_on_the_views_it_names() -> None:
    assert training_views(flip=False, jitter=0) == (View(),)
    views = training_views(flip=True, jitter=2)
    assert [view.title for view in views] == ["plain", "flipped", "jitter1", "jitter2"]
    assert len({str(view.recipe) for view in views}) == 4


def test_a_broken_image_is_one_in_every_view(photograph: bytes) -> None:
    for view in training_views(flip=True, jitter=1):
        with pytest.raises(ImageError):
            view.pixels("a.jpg", photograph[:200], IMAGE)
