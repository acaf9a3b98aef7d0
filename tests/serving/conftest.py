"""One captioner and one scheduler for all tests of the services."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi import FastAPI

from engine import Captioner, Scheduler
from serving.http.app import create_app

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
