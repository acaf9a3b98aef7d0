"""A scheduler that does nothing by itself: tests say what becomes of each request."""

import dataclasses
from queue import SimpleQueue
from typing import Any

from engine import (
    Caption,
    Captioner,
    CaptionFuture,
    CaptionStream,
    Histogram,
    Hypothesis,
    Scheduler,
    SchedulerStats,
    Timings,
)
from engine.scheduling.counters import SECONDS, HistogramCounter
from engine.scheduling.stream import Words

EMPTY = HistogramCounter(SECONDS).histogram()
CAPTION = Caption.best_of([Hypothesis("a dog", -1.5, -3.0, ("a", "dog", "#END#"), (-1.0, -1.0, -1.0), True)])


class StandIn(Scheduler):
    """Accepts `room` requests and keeps their futures; what exceeds the room raises `refusal`."""

    def __init__(self, captioner: Captioner, *, room: int = 1000, refusal: Exception | None = None) -> None:
        self._own = captioner
        self.room = room
        self.refusal = refusal
        self.futures: list[CaptionFuture] = []
        self.words: list[Words] = []
        self.timeouts: list[float | None] = []

    @property
    def captioner(self) -> Captioner:
        return self._own

    def submit(
        self, image: Any, decoding: Any = None, *, timeout: float | None = None, attention: bool = False
    ) -> CaptionFuture:
        if len(self.futures) >= self.room:
            assert self.refusal
            raise self.refusal
        future = CaptionFuture(lambda: not future.done(), self._own.bundle.manifest.name)
        self.futures.append(future)
        self.timeouts.append(timeout)
        return future

    def stream(
        self, image: Any, decoding: Any = None, *, timeout: float | None = None, attention: bool = False
    ) -> CaptionStream:
        self.words.append(Words())
        return CaptionStream(self.submit(image, decoding, timeout=timeout), self.words[-1], SimpleQueue())

    def stats(self) -> SchedulerStats:
        given: dict[str, Any] = {
            each.name: EMPTY if each.type is Histogram else 0 for each in dataclasses.fields(SchedulerStats)
        }
        return SchedulerStats(**given | {"queue_depth": len(self.futures), "max_rows": 256})

    def answer(self, caption: Caption = CAPTION) -> None:
        """Answers everything that waits."""
        for future in self.futures:
            if not future.done():
                future.timings = Timings(0.001, 0.002, 0.003)
                future.set_result(caption)

    def fail(self, error: Exception) -> None:
        """Fails everything that waits."""
        for future in self.futures:
            if not future.done():
                future.set_exception(error)
