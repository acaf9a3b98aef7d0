"""A request from its arrival to its answer, and the ledger of them all. Knows nothing of threads, models or images."""

import contextlib
import threading
import time
from concurrent.futures import InvalidStateError
from dataclasses import dataclass, field
from math import inf

from engine.captioner import Captioner
from engine.errors import DeadlineError
from engine.images import ImageInput
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
    captioner: Captioner
    rows: int
    future: CaptionFuture
    words: Words | None = None
    deadline: float = inf
    arrived: float = field(default_factory=time.monotonic)
    taken: float = 0.0  # by the encoder
    encoded: float = 0.0
    settled: bool = False  # has its answer, or was withdrawn: guarded by the ledger's lock


class Ledger:
    """Counts, and sees to it that each request is answered once."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self._counts = dict.fromkeys(("accepted", "finished", "failed", "cancelled", "expired", "refused"), 0)
        self._waits, self._encodes, self._decodes = Tally(SECONDS), Tally(SECONDS), Tally(SECONDS)
        self._batch_sizes, self._step_rows = Tally(SIZES), Tally(SIZES)

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
        """Takes a request back; False where its answer came first."""
        with self.lock:
            if request.settled:
                return False
            self._settled(request, "cancelled")
            return True

    def settle(self, request: Request, answer: Caption | Exception, *, given_up: bool = False) -> None:
        """Answers a request, unless it has been; given_up: it counts as cancelled."""
        finished = isinstance(answer, Caption)
        failure = "expired" if isinstance(answer, DeadlineError) else "failed"
        with self.lock:
            if request.settled:
                return
            self._settled(request, "cancelled" if given_up else "finished" if finished else failure)
            if finished:
                timings = Timings(
                    request.taken - request.arrived, request.encoded - request.taken, time.monotonic() - request.encoded
                )
                request.future.timings = timings
                self._waits.add(timings.queued)
                self._encodes.add(timings.encoding)
                self._decodes.add(timings.decoding)
        with contextlib.suppress(InvalidStateError):  # somebody else has set it
            if isinstance(answer, Caption):
                request.future.set_result(answer)
            else:
                request.future.set_exception(answer)

    def _settled(self, request: Request, how: str) -> None:
        request.settled, request.image = True, b""  # which is freed now, whoever keeps the future
        self.count(how)

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
