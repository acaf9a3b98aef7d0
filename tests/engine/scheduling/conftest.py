"""The captioner of the scheduler's tests, which may be changed by each."""

from pathlib import Path

import pytest

from engine import Captioner


@pytest.fixture
def captioner(tiny_bundle: Path) -> Captioner:
    return Captioner(tiny_bundle, provider="cpu", batch_size=8)
