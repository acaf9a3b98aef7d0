"""Both sides of every benchmark, made once. `--bundle PATH` takes another bundle than the one that ships."""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from benchmarks.pairs import Pair, Sides


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--bundle", type=Path, help="the bundle to measure; the one that ships where left out")


@pytest.fixture(scope="session")
def bundle(pytestconfig: pytest.Config) -> Path | None:
    folder: Path | None = pytestconfig.getoption("--bundle")
    return folder


@pytest.fixture(scope="session")
def sides(bundle: Path | None) -> Sides:
    return Sides(bundle)


@pytest.fixture(scope="session")
def pair(sides: Sides) -> Callable[[str, int], Pair]:
    """Makes the pair of a work and a batch size, and proves both sides equal before either is timed."""
    return cache(sides.pair)
