"""The competitors of every benchmark, each made once. `--bundle PATH` uses a bundle other than the one that ships.

`--quick` skips what takes long: large batches, torch.compile and all but one variant of each library.
"""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from benchmarks.harness.competitors import BATCHES, ENGINE, Competitors, kinds
from benchmarks.harness.workloads import WORKLOADS, Task
from engine.bundle.bundle import Bundle

QUICK_BATCHES = (1, 8)
QUICK_COMPETITORS = ("eager", "onnxruntime", "openvino latency")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--bundle", type=Path, help="the bundle to measure (default: the one that ships)")
    parser.addoption("--quick", action="store_true", help="small batches and few baselines, each workload once")


def is_slow(work: str, competitor: str) -> bool:
    """Whether --quick skips a competitor: all but the first baselines, and new processes with PyTorch."""
    return not competitor.startswith(ENGINE) and (
        competitor not in QUICK_COMPETITORS or (work, competitor) == ("start-up", "eager")
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Gives a test of (work, batch, competitor) every combination there is, those of one workload beside each other."""
    if "competitor" not in metafunc.fixturenames:
        return
    quick = metafunc.config.getoption("quick")
    batches = QUICK_BATCHES if quick else BATCHES
    competitors = kinds(Bundle.load(metafunc.config.getoption("bundle")))
    places = [
        (work, batch, competitor)
        for work, what in WORKLOADS.items()
        for batch in batches
        if batch in what.batches
        for competitor, kind in competitors.items()
        if what.part in kind.parts and not (quick and is_slow(work, competitor))
    ]
    metafunc.parametrize(
        ("work", "batch", "competitor"), places, ids=[f"{w}-{b}-{s}".replace(" ", "_") for w, b, s in places]
    )


@pytest.fixture(scope="session")
def bundle(pytestconfig: pytest.Config) -> Path | None:
    folder: Path | None = pytestconfig.getoption("bundle")
    return folder


@pytest.fixture(scope="session")
def quick(pytestconfig: pytest.Config) -> bool:
    return bool(pytestconfig.getoption("quick"))


@pytest.fixture(scope="session")
def competitors(bundle: Path | None, quick: bool) -> Competitors:
    return Competitors(bundle, most=max(QUICK_BATCHES if quick else BATCHES))


@pytest.fixture(scope="session")
def task(competitors: Competitors) -> Callable[[str, str, int], Task]:
    """Makes a workload of a competitor and a batch size, proved right before it is timed."""
    return cache(lambda work, competitor, batch: WORKLOADS[work].task(competitors, competitor, batch))
