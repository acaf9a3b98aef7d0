"""The captioner of the scheduler's tests, which may be changed by each, and what it says of images alone."""

import functools
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from engine import Caption, Captioner, Scheduler
from engine.options import Decoding
from tests.engine.gate import TIMEOUT


@pytest.fixture
def captioner(tiny_bundle: Path) -> Captioner:
    return Captioner(tiny_bundle, provider="cpu", batch_size=8)


@pytest.fixture
def scheduler(captioner: Captioner) -> Iterator[Scheduler]:
    opened = Scheduler(captioner, max_rows=16)
    yield opened
    opened.close(cancel=True, timeout=TIMEOUT)


@pytest.fixture(scope="session")
def images(drawn_data: Path) -> list[np.ndarray]:
    """Six drawings that the model was not trained on."""
    return [np.asarray(Image.open(path)) for path in sorted((drawn_data / "images").iterdir())[-6:]]


@pytest.fixture(scope="session")
def alone(tiny_captioner: Captioner, images: list[np.ndarray]) -> Callable[[int, Decoding], Caption]:
    """What the Captioner says of an image when no other is there."""

    @functools.cache
    def caption(image: int, way: Decoding) -> Caption:
        return tiny_captioner.caption([images[image]], way)[0]

    return caption
