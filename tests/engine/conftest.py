"""Gates before what a `captioner` does, drawings, and a cache folder of a test's own."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from engine import Captioner
from engine.decoding.step_request import StepRequest
from tests.engine.gate import Gate, closed_before


@pytest.fixture
def encoder(captioner: Captioner, monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    """A closed gate before every run of the encoder."""
    with closed_before(monkeypatch, captioner.model, "encode") as gate:
        yield gate


@pytest.fixture
def step(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    """A closed gate before every step."""
    with closed_before(monkeypatch, StepRequest, "run") as gate:
        yield gate


@pytest.fixture(scope="session")
def image(drawn_data: Path) -> np.ndarray:
    return np.asarray(Image.open(sorted((drawn_data / "images").iterdir())[-1]))


@pytest.fixture(scope="session")
def images(drawn_data: Path) -> list[Path]:
    """Twelve drawings that the model was not trained on."""
    return sorted((drawn_data / "images").iterdir())[-12:]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's cache: not there yet."""
    monkeypatch.setenv("CAPTIONING_ENGINE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"
