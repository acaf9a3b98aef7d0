"""Folders of drawings, and indexes of them by the tiny model."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from engine import Captioner, PhotoIndex
from engine.bundle.bundle import Bundle
from tests.vectors import RandomVectors

Open = Callable[..., PhotoIndex]


@pytest.fixture
def photos(tmp_path: Path, images: list[Path]) -> Path:
    """A folder with six drawings: four in it, two in a folder below."""
    folder = tmp_path / "photos"
    (folder / "below").mkdir(parents=True)
    for place, image in enumerate(images[:6]):
        shutil.copyfile(image, folder / ("below" if place > 3 else ".") / f"{place}{image.suffix}")
    return folder


@pytest.fixture
def opened(tmp_path: Path, tiny_captioner: Captioner) -> Iterator[Open]:
    """Opens the index in one file as often as it is called; closes all."""
    made: list[PhotoIndex] = []

    def open_index(captioner: Captioner = tiny_captioner, path: Path = tmp_path / "photos.db") -> PhotoIndex:
        made.append(PhotoIndex(path, captioner))
        return made[-1]

    yield open_index
    for each in made:
        each.close()


@pytest.fixture(scope="session")
def vectors(tiny_bundle: Path) -> RandomVectors:
    """Random vectors for the tiny model."""
    return RandomVectors(Bundle.load(tiny_bundle))


@pytest.fixture(scope="session")
def vector_captioner(vectors: RandomVectors, tmp_path_factory: pytest.TempPathFactory) -> Captioner:
    """The tiny model with these vectors."""
    return Captioner(vectors.add_to_copy(tmp_path_factory.mktemp("vectors") / "bundle"), provider="cpu", batch_size=8)
