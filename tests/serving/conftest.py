"""What tests of the services share: a captioner, a scheduler, the log, and photographs."""

import contextlib
import io
import logging
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from fastapi import FastAPI

from engine import Captioner, Greedy, PhotoIndex, Scheduler
from serving.http.app import create_app
from serving.http.logs import JsonLines
from tests.drawn import draw

if TYPE_CHECKING:
    from serving.ray_parts import Part
    from serving.ray_worker import Job

SAMPLES = Path(__file__).parents[2] / "samples"


@pytest.fixture(scope="session")
def captioner() -> Captioner:
    """The shipped model on the CPU."""
    return Captioner(provider="cpu", max_pixels=4_000_000)


@pytest.fixture(scope="session")
def scheduler(captioner: Captioner) -> Iterator[Scheduler]:
    """A scheduler of that model."""
    with Scheduler(captioner) as scheduler:
        yield scheduler


@pytest.fixture(scope="session")
def app(scheduler: Scheduler) -> FastAPI:
    """The HTTP service on it."""
    return create_app(scheduler, warm=False)


@pytest.fixture(scope="session")
def photos() -> list[bytes]:
    """Three photographs as files."""
    return [(SAMPLES / name).read_bytes() for name in ("cat.jpg", "coffee.jpg", "rocket.jpg")]


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    """What is logged."""
    text = io.StringIO()
    handler = JsonLines(text)
    logger = logging.getLogger("serving.http")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield text
    logger.removeHandler(handler)
    handler.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Twenty drawn photographs in a folder and its subfolder."""
    from tests.serving.bulk import NAMES

    generator = np.random.default_rng(7)
    (tmp_path / "photos" / "deep" / "er").mkdir(parents=True)
    for name in NAMES:
        draw("red", "circle", generator).save(tmp_path / "photos" / name)
    return tmp_path / "photos"


@pytest.fixture
def job(folder: Path, tmp_path: Path) -> "Job":
    """Greedy captions of those photographs."""
    from serving.ray_output import Output
    from serving.ray_worker import Job

    output = Output(str(tmp_path / "out"), "jsonl")
    output.begin({"model": "x"})
    return Job(
        input=str(folder),
        output=output,
        column=None,
        keep=(),
        decoding=Greedy(),
        bundle=None,
        provider="cpu",
        precision="int8",
        batch_size=8,
        threads=1,
        max_pixels=None,
    )


@pytest.fixture
def without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command of bulk captioning as it is, but for its workers, who are one in this process."""
    from serving import ray_data
    from serving.ray_worker import Worker, try_out

    def captioned(job: "Job", parts: "list[Part]", *_: object) -> list[tuple[int, int]]:
        return [Worker(job).caption(part) for part in parts]

    monkeypatch.setattr(ray_data, "cluster", lambda *_: contextlib.nullcontext())
    monkeypatch.setattr(ray_data, "opened_by_a_worker", lambda job, _: try_out(job))
    monkeypatch.setattr(ray_data, "room", lambda _: 1)
    monkeypatch.setattr(ray_data, "captioned", captioned)


@pytest.fixture
def keyed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A URI with keys that leads to a folder in this test's own, for format(folder)."""
    from pyarrow.fs import LocalFileSystem

    monkeypatch.setattr("serving.ray_places.connected", lambda _: (LocalFileSystem(), str(tmp_path)))
    return "s3://KEY:SECRET@bucket/{}?secret_key=SECRET"


@pytest.fixture(scope="session")
def vector_captioner(attention_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Captioner:
    """A small model of random weights that can compare photographs."""
    from engine.bundle.bundle import Bundle
    from tests.vectors import RandomVectors

    folder = tmp_path_factory.mktemp("vectors") / "bundle"
    RandomVectors(Bundle.load(attention_bundle)).add_to_copy(folder)
    return Captioner(folder, provider="cpu", precision="fp32", max_pixels=4_000_000)


@pytest.fixture(scope="session")
def vector_scheduler(vector_captioner: Captioner) -> Iterator[Scheduler]:
    """A scheduler of that model."""
    with Scheduler(vector_captioner) as scheduler:
        yield scheduler


@pytest.fixture(scope="session")
def samples_index(vector_captioner: Captioner, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PhotoIndex]:
    """An index of the samples."""
    with PhotoIndex(tmp_path_factory.mktemp("samples") / "photos.db", vector_captioner) as index:
        index.add([SAMPLES])
        yield index


@pytest.fixture(scope="session")
def search_app(vector_scheduler: Scheduler, samples_index: PhotoIndex) -> FastAPI:
    """The HTTP service with that index."""
    return create_app(vector_scheduler, warm=False, index=samples_index)


@pytest.fixture
def album(tmp_path: Path) -> Path:
    """A folder with two photographs."""
    (tmp_path / "private").mkdir()
    for name in ("cat.jpg", "coffee.jpg"):
        shutil.copyfile(SAMPLES / name, tmp_path / "private" / name)
    return tmp_path / "private"


@pytest.fixture
def index(album: Path, vector_captioner: Captioner, monkeypatch: pytest.MonkeyPatch) -> PhotoIndex:
    """An index of that folder, and an empty cache."""
    monkeypatch.setenv("CAPTIONING_ENGINE_CACHE", str(album.parent / "cache"))
    index = PhotoIndex(album.parent / "photos.db", vector_captioner)
    index.add([album])
    return index


@pytest.fixture
def own(index: PhotoIndex, vector_scheduler: Scheduler) -> FastAPI:
    """The service with that index."""
    return create_app(vector_scheduler, warm=False, index=index)
