"""Each piece of work by the engine and by PyTorch eager, beside each other in one group, their outputs equal."""

from collections.abc import Callable

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.pairs import BATCHES, WORKS, Pair


@pytest.mark.parametrize("side", ["engine", "pytorch"])
@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("work", WORKS)
def test_speed(benchmark: BenchmarkFixture, pair: Callable[[str, int], Pair], work: str, batch: int, side: str) -> None:
    benchmark.group = f"{work}, batch {batch}"
    benchmark(getattr(pair(work, batch), side))
