"""The Scheduler: requests of one image each, from any thread or event loop, captioned together."""

import asyncio
import threading
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from engine.captioner import Captioner
from engine.checks import is_int, is_number, require
from engine.decoding.decode import rows_per_image
from engine.decoding.rules import Rules
from engine.errors import ClosedError, DeadlineError, DeviceError, EngineError, OptionsError, OverloadedError
from engine.images import ImageInput
from engine.options import Beam, Decoding, Greedy, Sample
from engine.result import Caption
from engine.scheduling.counters import SECONDS, SIZES, SchedulerStats, Tally
from engine.scheduling.future import CaptionFuture, Timings
from engine.scheduling.stream import CaptionStream, Words


@dataclass(eq=False, slots=True)
class _Request:
    image: ImageInput
    decoding: Decoding
    captioner: Captioner
    arrived: float
    deadline: float
    future: CaptionFuture
    words: Words | None
    settled: bool = False


class Scheduler:
    """Captions single images, each with its own options, for many callers at once. Threads and event loops share it.

    max_rows: most sentences that grow at once; max_queue: most requests that wait, more are refused; max_wait_ms:
    longest time that the encoder waits for more images than one.
    """

    def __init__(
        self, captioner: Captioner, *, max_rows: int = 256, max_queue: int = 256, max_wait_ms: float = 2.0
    ) -> None:
        for name, value in (("max_rows", max_rows), ("max_queue", max_queue)):
            require(is_int(value, 1), "Scheduler", name, value, "a whole number from 1")
        fits = is_number(max_wait_ms) and max_wait_ms >= 0
        require(fits, "Scheduler", "max_wait_ms", max_wait_ms, "a number from 0")
        self._captioner = captioner
        self._max_rows, self._max_queue = max_rows, max_queue
        self._queue: deque[_Request] = deque()
        self._running: _Request | None = None
        self._lock = threading.Condition()
        self._closed = False
        self._counts = dict.fromkeys(("accepted", "finished", "failed", "cancelled", "expired", "refused"), 0)
        self._waits, self._encodes, self._decodes = Tally(SECONDS), Tally(SECONDS), Tally(SECONDS)
        self._batch_sizes, self._step_rows = Tally(SIZES), Tally(SIZES)
        self._thread = threading.Thread(target=self._work, name="scheduler", daemon=True)
        self._thread.start()

    @property
    def captioner(self) -> Captioner:
        """The captioner that new requests go to."""
        return self._captioner

    def submit(
        self,
        image: ImageInput,
        decoding: Decoding = Greedy(),  # noqa: B008 - frozen
        *,
        timeout: float | None = None,
    ) -> CaptionFuture:
        """Returns the caption to come of an image.

        timeout: seconds from now, after which the request fails with a DeadlineError. An image that cannot be read is
        an ImageError of its own request, a run that failed a DeviceError. Files and PIL images must not be used
        elsewhere until the future is done. Raises OptionsError, OverloadedError, ClosedError.
        """
        return self._submit(image, decoding, timeout, None)

    async def caption(
        self,
        image: ImageInput,
        decoding: Decoding = Greedy(),  # noqa: B008 - frozen
        *,
        timeout: float | None = None,
    ) -> Caption:
        """Returns the caption of an image; cancelling the task cancels the request. Raises as `submit` does."""
        return await asyncio.wrap_future(self.submit(image, decoding, timeout=timeout))

    def stream(
        self,
        image: ImageInput,
        decoding: Decoding = Greedy(),  # noqa: B008 - frozen
        *,
        timeout: float | None = None,
    ) -> CaptionStream:
        """Returns the words of an image's caption as they come; those of a beam when they can no longer change.

        Raises as `submit` does.
        """
        words = Words()
        return CaptionStream(self._submit(image, decoding, timeout, words), words)

    def stats(self) -> SchedulerStats:
        """Returns what happened since the start."""
        with self._lock:
            return SchedulerStats(
                queue_depth=len(self._queue),
                rows_in_use=self._rows(self._running) if self._running else 0,
                max_rows=self._max_rows,
                waits=self._waits.histogram(),
                encodes=self._encodes.histogram(),
                decodes=self._decodes.histogram(),
                batch_sizes=self._batch_sizes.histogram(),
                step_rows=self._step_rows.histogram(),
                **self._counts,
            )

    def swap(self, bundle: str | Path | Captioner | None) -> None:
        """Sends new requests to another bundle, or Captioner, which is opened and warmed up first.

        What was accepted before is finished with the bundle that it came for. Raises as Captioner does.
        """
        with self._lock:
            if self._closed:
                raise ClosedError("the scheduler is closed: it has nothing to swap")
        old = self._captioner
        captioner = bundle
        if not isinstance(captioner, Captioner):
            captioner = Captioner(
                captioner,
                provider=old.provider,
                precision=old.precision,
                batch_size=old.batch_size,
                max_pixels=old.max_pixels,
                runtime=old.choice.runtime,
            )
        captioner.warmup()
        with self._lock:
            self._captioner = captioner

    def close(self, *, cancel: bool = False, timeout: float | None = None) -> None:
        """Takes no more requests, finishes those accepted (cancel: gives them up), and ends its threads."""
        with self._lock:
            self._closed = True
            given_up = [*self._queue, *([self._running] if self._running else [])] if cancel else []
            self._lock.notify_all()
        for request in given_up:
            self._settle(request, ClosedError("the scheduler was closed before this request was done"), "cancelled")
        self._thread.join(timeout)

    def __enter__(self) -> "Scheduler":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(cancel=error is not None)

    def _submit(
        self, image: ImageInput, decoding: Decoding, timeout: float | None, words: Words | None
    ) -> CaptionFuture:
        if not isinstance(decoding, Greedy | Beam | Sample):
            raise OptionsError(f"decoding={decoding!r}: decoding must be a Greedy(), Beam() or Sample()")
        fits = timeout is None or (is_number(timeout) and timeout >= 0)
        require(fits, "Scheduler.submit", "timeout", timeout, "a number of seconds from 0, or None")
        captioner = self._captioner
        bundle = captioner.bundle
        Rules.of(decoding, bundle.vocabulary, bundle.manifest.defaults)
        rows = rows_per_image(decoding, bundle.manifest.defaults)
        if rows > self._max_rows:
            raise OptionsError(f"{decoding!r} takes {rows} rows, more than the scheduler's max_rows={self._max_rows}")
        now = time.monotonic()
        future = CaptionFuture(lambda: self._withdraw(request))
        deadline = float("inf") if timeout is None else now + timeout
        request = _Request(image, decoding, captioner, now, deadline, future, words)
        with self._lock:
            if self._closed:
                raise ClosedError("the scheduler is closed and takes no more requests")
            if len(self._queue) >= self._max_queue:
                self._counts["refused"] += 1
                raise OverloadedError(f"{self._max_queue} requests are waiting already (max_queue): try again later")
            self._counts["accepted"] += 1
            self._queue.append(request)
            self._lock.notify_all()
        return future

    def _rows(self, request: _Request) -> int:
        return rows_per_image(request.decoding, request.captioner.bundle.manifest.defaults)

    def _withdraw(self, request: _Request) -> bool:
        with self._lock:
            if request.settled:
                return False
            request.settled = True
            self._counts["cancelled"] += 1
            if request in self._queue:
                self._queue.remove(request)
            return True

    def _settle(self, request: _Request, answer: Caption | Exception, how: str) -> None:
        with self._lock:
            if request.settled:
                return
            request.settled = True
            self._counts[how] += 1
            if (timings := request.future.timings) is not None:
                self._waits.add(timings.queued)
                self._encodes.add(timings.encoding)
                self._decodes.add(timings.decoding)
        if isinstance(answer, Exception):
            request.future.set_exception(answer)
        else:
            request.future.set_result(answer)

    def _work(self) -> None:
        while True:
            with self._lock:
                self._running = None
                while not self._queue and not self._closed:
                    self._lock.wait()
                if not self._queue:
                    return
                request = self._running = self._queue.popleft()
            try:
                self._run(request)
            except EngineError as error:
                self._settle(request, error, "failed")
            except Exception as error:
                failure = DeviceError(f"the run failed on provider {request.captioner.provider!r}: {error}")
                failure.__cause__ = error
                self._settle(request, failure, "failed")

    def _run(self, request: _Request) -> None:
        began = time.monotonic()
        if began >= request.deadline:
            self._settle(request, DeadlineError("the time for this request was over while it waited"), "expired")
            return
        with self._lock:
            self._batch_sizes.add(1)
        features = request.captioner.encode([request.image])
        encoded = time.monotonic()
        caption = request.captioner.caption_features(features, request.decoding)[0]
        done = time.monotonic()
        if done >= request.deadline:
            self._settle(request, DeadlineError("the time for this request was over while it was decoded"), "expired")
            return
        if request.words is not None:
            end = request.captioner.bundle.vocabulary.words[request.captioner.bundle.vocabulary.end_id]
            request.words.put([word for word in caption.tokens if word != end])
        request.future.timings = Timings(began - request.arrived, encoded - began, done - encoded)
        self._settle(request, caption, "finished")
