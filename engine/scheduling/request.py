"""A request from arrival to answer, and the ledger of all requests. Knows nothing of threads, models or images."""

import contextlib
import queue
import threading
import time
from dataclasses import dataclass, field
from math import inf
from typing import Any

from engine.errors import DeadlineError
from engine.images.load import ImageInput
from engine.options import Decoding
from engine.result import Caption
from engine.scheduling.counters import SECONDS, SIZES, HistogramCounter, SchedulerStats
from engine.scheduling.future import CaptionFuture, Timings
from engine.scheduling.stream import Words


@dataclass(eq=False, slots=True)
class Request:
    """One image to be captioned. Times are from time.monotonic()."""

    image: ImageInput
    decoding: Decoding
    rows: int
    future: CaptionFuture
    words: Words | None = None
    deadline: float = inf
    arrived: float = field(default_factory=time.monotonic)
    taken: float = 0.0  # by the encoder
    encoded: float = 0.0
    attention: bool = False
    features: Any = None  # (1, *feature_shape) while it is decoded, if attention is wanted
    settled: bool = False  # answered or cancelled; guarded by the ledger's lock


class Ledger:
    """Counts requests and makes sure that each is answered exactly once.

    No image is released while the lock is held, because its finalizer may call the scheduler. dropped: futures to be
    cancelled a moment later, added by code that must not wait for the lock.
    """

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.dropped: queue.SimpleQueue[CaptionFuture] = queue.SimpleQueue()
        self._counts = dict.fromkeys(("accepted", "finished", "failed", "cancelled", "expired", "refused"), 0)
        self._waits, self._encodes, self._decodes = (HistogramCounter(SECONDS) for _ in range(3))
        self._batch_sizes, self._step_rows = HistogramCounter(SIZES), HistogramCounter(SIZES)

    @property
    def interrupted(self) -> bool:
        """Whether this thread already holds the lock, as in a finalizer or signal handler that interrupted it."""
        return bool(self.lock._is_owned())  # type: ignore[attr-defined]

    def count(self, what: str) -> None:
        """Counts an event; the caller holds the lock."""
        self._counts[what] += 1

    def encodes(self, images: int) -> None:
        """Counts a run of the encoder."""
        with self.lock:
            self._batch_sizes.add(images)

    def steps(self, rows: int) -> None:
        """Counts a step."""
        with self.lock:
            self._step_rows.add(rows)

    def withdraw(self, request: Request) -> bool:
        """Cancels a request; returns False if it was answered or cancelled before."""
        with self.lock:
            if request.settled:
                return False
            request.settled = request.future._withdrawn = True
            self.count("cancelled")
        request.image = b""  # freed now, even if the future is kept
        return True

    def cancel_dropped(self) -> None:
        """Cancels dropped futures; called without the lock."""
        while not self.dropped.empty():
            with contextlib.suppress(queue.Empty):  # two threads may do this at once
                self.dropped.get_nowait()._drop()

    def settle(self, request: Request, outcome: Caption | Exception, *, given_up: bool = False) -> None:
        """Sets the outcome of a request if it has none; given_up: count it as cancelled."""
        finished = isinstance(outcome, Caption)
        failure = "expired" if isinstance(outcome, DeadlineError) else "failed"
        with self.lock:
            if request.settled:
                return
            request.settled = True
            self.count("cancelled" if given_up else "finished" if finished else failure)
            if finished:
                timings = Timings(
                    request.taken - request.arrived, request.encoded - request.taken, time.monotonic() - request.encoded
                )
                request.future.timings = timings
                self._waits.add(timings.queued)
                self._encodes.add(timings.encoding)
                self._decodes.add(timings.decoding)
        request.image = b""
        request.future._finish(outcome)

    def stats(self, *, queue_depth: int, rows_in_use: int, max_rows: int) -> SchedulerStats:
        """Returns all counters; the caller holds the lock."""
        return SchedulerStats(
            queue_depth=queue_depth,
            rows_in_use=rows_in_use,
            max_rows=max_rows,
            waits=self._waits.histogram(),
            encodes=self._encodes.histogram(),
            decodes=self._decodes.histogram(),
            batch_sizes=self._batch_sizes.histogram(),
            step_rows=self._step_rows.histogram(),
            **self._counts,
        )
