"""Gates before what a `captioner` does, and a photograph."""

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
