"""The sides of every benchmark, each made once. `--bundle PATH` takes another bundle than the one that ships.

`--quick` leaves out what takes long: large batches, torch.compile and all but one of each library's ways.
"""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from benchmarks.sides import BATCHES, ENGINE, Sides, kinds
from benchmarks.works import WORKS, Task
from engine.bundle.bundle import Bundle

QUICK_BATCHES = (1, 8)
QUICK_SIDES = ("eager", "onnxruntime", "openvino latency")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--bundle", type=Path, help="the bundle to measure; the one that ships where left out")
    parser.addoption("--quick", action="store_true", help="small batches and few baselines, each work once")


def is_slow(work: str, side: str) -> bool:
    """Whether --quick leaves a side out: a baseline beyond the first ones, and starting PyTorch anew."""
    return not side.startswith(ENGINE) and (side not in QUICK_SIDES or (work, side) == ("start-up", "eager"))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Gives a test of (work, batch, side) every combination there is, the sides of one work beside each other."""
    if "side" not in metafunc.fixturenames:
        return
    quick = metafunc.config.getoption("quick")
    batches = QUICK_BATCHES if quick else BATCHES
    sides = kinds(Bundle.load(metafunc.config.getoption("bundle")))
    places = [
        (work, batch, side)
        for work, what in WORKS.items()
        for batch in batches
        if batch in what.batches
        for side, kind in sides.items()
        if what.part in kind.parts and not (quick and is_slow(work, side))
    ]
    metafunc.parametrize(
        ("work", "batch", "side"), places, ids=[f"{w}-{b}-{s}".replace(" ", "_") for w, b, s in places]
    )


@pytest.fixture(scope="session")
def bundle(pytestconfig: pytest.Config) -> Path | None:
    folder: Path | None = pytestconfig.getoption("bundle")
    return folder


@pytest.fixture(scope="session")
def quick(pytestconfig: pytest.Config) -> bool:
    return bool(pytestconfig.getoption("quick"))


@pytest.fixture(scope="session")
def sides(bundle: Path | None, quick: bool) -> Sides:
    return Sides(bundle, most=max(QUICK_BATCHES if quick else BATCHES))


@pytest.fixture(scope="session")
def task(sides: Sides) -> Callable[[str, str, int], Task]:
    """Makes a work of a side and a batch size, proved right before it is timed."""
    return cache(lambda work, side, batch: WORKS[work].task(sides, side, batch))
