"""Interleaved timing, for ratios that are robust on a noisy machine. Knows nothing of what is timed.

In each round every competitor runs once, one after another, and each round gives one ratio per pair. A slowdown of the
machine that lasts longer than a round affects all of them.
"""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

LEAST_SECONDS = 0.2
"""Seconds that each competitor gets in a round, in which a quick piece of work is done many times."""
FEWEST_ROUNDS = 5

Ratios = tuple[float, float, float]


def interleave(
    tasks: Mapping[str, Callable[[], Any]], seconds: float, fewest: int = FEWEST_ROUNDS
) -> dict[str, list[float]]:
    """Returns the seconds of a call of each task in each round; rounds go on for `seconds` for each task."""
    calls = {name: max(1, round(LEAST_SECONDS / _mean_seconds(task, 2))) for name, task in tasks.items()}
    times: dict[str, list[float]] = {name: [] for name in tasks}
    begin, rounds = time.perf_counter(), 0
    while rounds < fewest or time.perf_counter() < begin + seconds * len(tasks):
        for name, task in tasks.items():
            times[name].append(_mean_seconds(task, calls[name]))
        rounds += 1
    return times


def _mean_seconds(task: Callable[[], Any], calls: int) -> float:
    """Returns the mean seconds of some calls, after one that is not timed: the last competitor's threads still spin.

    They do not for as long as a call takes that fills a turn alone.
    """
    if calls > 1:
        task()
    start = time.perf_counter()
    for _ in range(calls):
        task()
    return (time.perf_counter() - start) / calls


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> Ratios:
    """Returns the first quartile, the median and the third quartile of their time over ours, round by round."""
    low, middle, high = statistics.quantiles([b / a for a, b in zip(ours, theirs, strict=True)], n=4)
    return low, middle, high
