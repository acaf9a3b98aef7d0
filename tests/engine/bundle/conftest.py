"""A bundle to break."""

import shutil
from pathlib import Path

import pytest


@pytest.fixture
def folder(tiny_bundle: Path, tmp_path: Path) -> Path:
    """A bundle of one's own, to break."""
    return Path(shutil.copytree(tiny_bundle, tmp_path / "bundle"))
