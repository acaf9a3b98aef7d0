"""Times each workload with the engine in every precision and every baseline, grouped by batch size.

Results are checked before timing. extra_info has images a second and percentiles in milliseconds.
"""

import time
from collections.abc import Callable

import numpy as np
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.harness.workloads import Task

SECONDS = 1.5
"""What the rounds of one benchmark take together, but for the FEWEST."""
FEWEST, MOST = 3, 200
PERCENTILES = (50, 90, 99)


def test_speed(
    benchmark: BenchmarkFixture,
    task: Callable[[str, str, int], Task],
    work: str,
    batch: int,
    competitor: str,
    quick: bool,
) -> None:
    run = task(work, competitor, batch)
    rounds, warm_up = (1, 0) if quick else _rounds(run)
    benchmark.group = f"{work}, batch {batch}"
    benchmark.extra_info |= {"work": work, "batch": batch, "side": competitor}
    benchmark.pedantic(run, rounds=rounds, warmup_rounds=warm_up)  # type: ignore[no-untyped-call]
    if benchmark.stats is not None:  # None where benchmarks are switched off
        seconds = benchmark.stats.stats.sorted_data
        found = zip(PERCENTILES, np.percentile(seconds, PERCENTILES), strict=True)
        benchmark.extra_info |= {f"p{share}_ms": round(1000 * float(value), 4) for share, value in found}
        benchmark.extra_info["images_per_second"] = round(batch / float(np.median(seconds)), 2)


def _rounds(run: Task) -> tuple[int, int]:
    """Returns how many rounds fit into SECONDS, and how many come before that are not counted."""
    start = time.perf_counter()
    run()
    once = time.perf_counter() - start
    return int(np.clip(SECONDS / once, FEWEST, MOST)), int(once < SECONDS / FEWEST)
