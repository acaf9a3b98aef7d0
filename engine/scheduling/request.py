"""A request from its arrival to its answer, and the ledger of them all. Knows nothing of threads, models or images."""

import contextlib
import queue
import threading
import time
from dataclasses import dataclass, field
from math import inf

from engine.errors import DeadlineError, EngineError
from engine.images.load import ImageInput
from engine.options import Decoding
from engine.result import Caption
from engine.scheduling.counters import SECONDS, SIZES, SchedulerStats, Tally
from engine.scheduling.future import CaptionFuture, Timings
from engine.scheduling.stream import Words


@dataclass(eq=False, slots=True)
class Request:
    """One image to be captioned. Times are those of time.monotonic()."""

    image: ImageInput
    decoding: Decoding
    rows: int
    future: CaptionFuture
    words: Words | None = None
    deadline: float = inf
    arrived: float = field(default_factory=time.monotonic)
    taken: float = 0.0  # by the encoder
    encoded: float = 0.0
    settled: bool = False  # has its answer, or was withdrawn: guarded by the ledger's lock


class Ledger:
    """Counts, and sees to it that each request is answered once.

    No image is let go while the lock is held: what its owner does then may be to ask the scheduler. dropped: futures to
    be cancelled a moment later, put there by code that may not wait for the lock.
    """

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.dropped: queue.SimpleQueue[CaptionFuture] = queue.SimpleQueue()
        self._counts = dict.fromkeys(("accepted", "finished", "failed", "cancelled", "expired", "refused"), 0)
        self._waits, self._encodes, self._decodes = Tally(SECONDS), Tally(SECONDS), Tally(SECONDS)
        self._batch_sizes, self._step_rows = Tally(SIZES), Tally(SIZES)

    @property
    def interrupted(self) -> bool:
        """Whether this thread holds the lock: a finalizer or a signal handler, which come anywhere, is what asks."""
        return bool(self.lock._is_owned())  # type: ignore[attr-defined]

    def require_outside(self, call: str) -> None:
        """Raises EngineError where a finalizer or a signal handler has interrupted the scheduler itself."""
        if self.interrupted:
            raise EngineError(
                f"{call} was called by a finalizer or signal handler that has interrupted the scheduler itself: "
                "let the handler set a flag, and call from the program or another thread"
            )

    def count(self, what: str) -> None:
        """Counts an event; the caller holds the lock."""
        self._counts[what] += 1

    def encodes(self, images: int) -> None:
        """Notes a run of the encoder."""
        with self.lock:
            self._batch_sizes.add(images)

    def steps(self, rows: int) -> None:
        """Notes a step."""
        with self.lock:
            self._step_rows.add(rows)

    def withdraw(self, request: Request) -> bool:
        """Takes a request back; False where it was answered, or taken back, before."""
        with self.lock:
            if request.settled:
                return False
            request.settled = request.future._withdrawn = True
            self.count("cancelled")
        request.image = b""  # which is freed now, whoever keeps the future
        return True

    def cancel_dropped(self) -> None:
        """Cancels what was dropped; called without the lock."""
        while not self.dropped.empty():
            with contextlib.suppress(queue.Empty):  # two threads may look at once
                self.dropped.get_nowait()._drop()

    def settle(self, request: Request, answer: Caption | Exception, *, given_up: bool = False) -> None:
        """Answers a request, unless it has been; given_up: it counts as cancelled."""
        finished = isinstance(answer, Caption)
        failure = "expired" if isinstance(answer, DeadlineError) else "failed"
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
        request.future._answer(answer)

    def stats(self, *, queue_depth: int, rows_in_use: int, max_rows: int) -> SchedulerStats:
        """Returns all that was counted; the caller holds the lock."""
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
