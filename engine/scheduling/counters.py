"""Counters of the scheduler: outcomes of requests, durations of stages, sizes of runs."""

import bisect
from dataclasses import dataclass

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
SIZES = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0)


@dataclass(frozen=True, slots=True)
class Histogram:
    """How many values fell between one bound and the next; counts has one more entry, for those above the last bound.

    total is the sum of all values.
    """

    bounds: tuple[float, ...]
    counts: tuple[int, ...]
    total: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SchedulerStats:
    """A scheduler's state at one moment, and its totals since the start.

    queue_depth: requests waiting for the encoder. rows_in_use: how many of max_rows are taken by requests being
    encoded or decoded.
    Each accepted request ends as finished, failed, cancelled or expired; refused requests were never accepted.
    waits, encodes, decodes: seconds that finished requests spent in each stage. batch_sizes: images of each run of the
    encoder. step_rows: rows of each step.
    """

    queue_depth: int
    rows_in_use: int
    max_rows: int
    accepted: int
    finished: int
    failed: int
    cancelled: int
    expired: int
    refused: int
    waits: Histogram
    encodes: Histogram
    decodes: Histogram
    batch_sizes: Histogram
    step_rows: Histogram


class HistogramCounter:
    """A histogram that is being filled; callers hold the lock."""

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._total = 0.0

    def add(self, value: float) -> None:
        """Counts a value."""
        self._counts[bisect.bisect_left(self._bounds, value)] += 1
        self._total += value

    def histogram(self) -> Histogram:
        """Returns what was counted so far."""
        return Histogram(self._bounds, tuple(self._counts), self._total)
