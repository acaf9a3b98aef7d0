"""Times several sides in turns, for ratios that a noisy machine does not bend. Knows nothing of what they do.

A turn of each side is followed at once by a turn of the next, and each round gives one ratio for each pair, so that
whatever slows the machine for longer than a round slows all.
"""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

TURN = 0.2
"""Least seconds of a turn, in which a quick piece of work is done many times."""
FEWEST_ROUNDS = 5

Ratios = tuple[float, float, float]


def take_turns(
    tasks: Mapping[str, Callable[[], Any]], seconds: float, fewest: int = FEWEST_ROUNDS
) -> dict[str, list[float]]:
    """Returns the seconds of a call of each task in each round; rounds go on for `seconds` for each task."""
    calls = {name: max(1, round(TURN / _turn(task, 2))) for name, task in tasks.items()}
    times: dict[str, list[float]] = {name: [] for name in tasks}
    begin, rounds = time.perf_counter(), 0
    while rounds < fewest or time.perf_counter() < begin + seconds * len(tasks):
        for name, task in tasks.items():
            times[name].append(_turn(task, calls[name]))
        rounds += 1
    return times


def _turn(task: Callable[[], Any], calls: int) -> float:
    """Returns the mean seconds of some calls, after one that is not timed: the other side's threads still spin.

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
