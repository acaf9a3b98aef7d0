"""Folders of drawings, indexes of them by the tiny model, and empty stores in a file and on a server."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from engine import Captioner, PhotoIndex
from engine.bundle.bundle import Bundle
from engine.search.place import open_store
from engine.search.store import BundleKey, Store
from tests.engine.search.postgres_server import installed, running
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


@pytest.fixture(scope="session")
def postgres_socket() -> Iterator[Path]:
    """The folder of a running server's socket."""
    pytest.importorskip("psycopg", reason="psycopg is not installed (extra postgres)")
    if (programs := installed()) is None:
        pytest.skip("there is no PostgreSQL server with pgvector: install postgresql-*-pgvector or the extra dev")
    with running(programs) as socket:
        yield socket


@pytest.fixture
def postgres_place(postgres_socket: Path) -> str:
    """The address of an empty database: that of the test before, for a new one is thousands of files in the end."""
    import psycopg

    place = f"postgresql://owner@/postgres?host={postgres_socket}"
    with psycopg.connect(place, autocommit=True) as connection:
        connection.execute("DROP SCHEMA IF EXISTS photo_index CASCADE")
        connection.execute("DROP EXTENSION IF EXISTS vector CASCADE")
    return place


@pytest.fixture(params=["sqlite", "postgres"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where an index can be made: in a file and on a server."""
    if request.param == "sqlite":
        return str(tmp_path / "photos.db")
    return str(request.getfixturevalue("postgres_place"))


@pytest.fixture
def opened_store(place: str) -> Iterator[Callable[..., Store]]:
    """Opens the index at that place for a bundle; it is closed in the end."""
    stores: list[Store] = []

    def open_(key: BundleKey, *, create: bool = True) -> Store:
        stores.append(open_store(place, key, create=create))
        return stores[-1]

    yield open_
    for store in stores:
        store.close()
