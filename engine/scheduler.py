"""The Scheduler: captions single-image requests from many threads and event loops in shared batches."""

import asyncio
import threading
import time
import weakref
from math import inf
from pathlib import Path
from types import TracebackType

import numpy as np

from engine.attention import require_attention
from engine.captioner import Captioner
from engine.decoding.decode import rows_per_image
from engine.errors import ClosedError, OptionsError
from engine.fork_guard import ForkGuard
from engine.images.load import ImageInput
from engine.options import DEFAULT_DECODING, Beam, Decoding, Sample, require_decoding
from engine.result import Caption
from engine.scheduling.counters import SchedulerStats
from engine.scheduling.future import CaptionFuture
from engine.scheduling.request import Ledger, Request
from engine.scheduling.running_batch import shared_options
from engine.scheduling.shutdown import close_at_exit, close_in_threads, close_when_dropped
from engine.scheduling.stream import CaptionStream, Words
from engine.scheduling.workers import Workers
from engine.validation import is_int, is_number, require


class Scheduler:
    """Captions single images, each with its own options, for many callers at once; threads and event loops share it.

    Finalizers and signal handlers may read `stats`, cancel and `close`, but must not submit or swap.

    max_rows: most sentences decoded at once. max_queue: most waiting requests; further ones are refused.
    max_wait_ms: longest time that the encoder waits for more images.
    """

    def __init__(
        self, captioner: Captioner, *, max_rows: int = 256, max_queue: int = 256, max_wait_ms: float = 2.0
    ) -> None:
        for name, value in (("max_rows", max_rows), ("max_queue", max_queue)):
            require(is_int(value, 1), "Scheduler", name, value, "a whole number from 1")
        fits = is_number(max_wait_ms) and max_wait_ms >= 0
        require(fits, "Scheduler", "max_wait_ms", max_wait_ms, "a number from 0")
        self._max_rows, self._max_queue, self._max_wait = max_rows, max_queue, max_wait_ms / 1000
        self._fork_guard = ForkGuard("Scheduler")
        self._ledger = Ledger()
        self._swapping = threading.RLock()
        self._captioner = captioner
        self._workers = self._open(captioner)  # take new requests
        self._all_workers = weakref.WeakSet([self._workers])  # with those swapped out, alive while their threads run
        self._threads = self._workers.threads
        self._closed = False
        close_when_dropped(self, self._all_workers, self._fork_guard)

    @property
    def captioner(self) -> Captioner:
        """The captioner that new requests go to."""
        return self._captioner

    def submit(
        self,
        image: ImageInput,
        decoding: Decoding = DEFAULT_DECODING,
        *,
        timeout: float | None = None,
        attention: bool = False,
    ) -> CaptionFuture:
        """Queues an image and returns the future of its caption.

        timeout: seconds from now after which the request fails with a DeadlineError. An image that cannot be read fails
        only its own request, with an ImageError; a failed run gives a DeviceError. Do not use files and PIL images
        elsewhere until the future is done; after a cancel or timeout a file may be read for a moment longer.
        attention: the caption says where the model looked, as in Captioner.caption.
        Raises OptionsError, OverloadedError, ClosedError.
        """
        return self._submit(image, decoding, timeout, attention=attention)

    async def caption(
        self,
        image: ImageInput,
        decoding: Decoding = DEFAULT_DECODING,
        *,
        timeout: float | None = None,
        attention: bool = False,
    ) -> Caption:
        """Returns the caption of an image; cancelling the task cancels the request. Raises as `submit` does."""
        return await asyncio.wrap_future(self.submit(image, decoding, timeout=timeout, attention=attention))

    def stream(
        self,
        image: ImageInput,
        decoding: Decoding = DEFAULT_DECODING,
        *,
        timeout: float | None = None,
        attention: bool = False,
    ) -> CaptionStream:
        """Returns the words of an image's caption as they are decoded; with a beam, once they can no longer change.

        Raises as `submit` does.
        """
        words = Words()
        future = self._submit(image, decoding, timeout, words, attention=attention)
        return CaptionStream(future, words, self._ledger.dropped)

    def stats(self) -> SchedulerStats:
        """Returns the scheduler's state and its totals since the start."""
        with self._ledger.lock:
            queued, rows = zip(*(workers.usage() for workers in self._all_workers), strict=True)
            return self._ledger.stats(queue_depth=sum(queued), rows_in_use=sum(rows), max_rows=self._max_rows)

    def swap(self, bundle: str | Path | Captioner | None) -> None:
        """Sends new requests to another bundle or Captioner, after opening it and warming it up.

        Requests accepted earlier are finished with the old bundle. Of two swaps at once, the second waits for the
        first. Raises what Captioner raises, and ClosedError.
        """
        self._fork_guard.check()
        with self._swapping:
            old, captioner = self._captioner, bundle
            if not isinstance(captioner, Captioner):
                captioner = Captioner(
                    captioner,
                    provider=old.provider,
                    precision=old.precision,
                    batch_size=old.batch_size,
                    max_pixels=old.max_pixels,
                    formats=old.formats,
                    runtime=old.choice.runtime,
                )
            captioner.warmup()
            workers = self._open(captioner)
            with self._ledger.lock:
                unneeded = workers if self._closed else self._workers
                if not self._closed:
                    self._captioner, self._workers = captioner, workers
                    self._all_workers.add(workers)
                    # a thread may outlive its model, so wait for the thread itself
                    self._threads = [thread for thread in self._threads if thread.is_alive()] + workers.threads
            unneeded.close()
            if unneeded is workers:
                for thread in workers.threads:
                    thread.join()
                raise ClosedError("the scheduler is closed, so its model cannot be swapped")

    def close(self, *, cancel: bool = False, timeout: float | None = None) -> None:
        """Stops accepting requests, finishes those accepted (or cancels them, if `cancel`), and ends the threads.

        Waits for that, but at most `timeout` seconds; the rest then continues in the background. It does not wait when
        called from a caption's callback, which would wait for itself, or from a finalizer or signal handler that
        interrupted this thread inside the scheduler. Other finalizers and handlers should pass timeout=0, because the
        interrupted thread may hold a lock that a future needs. In a fork of the process this does nothing.
        """
        fits = timeout is None or (is_number(timeout) and timeout >= 0)
        require(fits, "Scheduler.close", "timeout", timeout, "a number of seconds from 0, or None")
        if not self._fork_guard.in_owner:
            return
        until = None if timeout is None else time.monotonic() + timeout
        with self._ledger.lock:
            self._closed, every, threads = True, list(self._all_workers), self._threads
        if self._ledger.interrupted:
            close_in_threads(every, cancel=cancel)
            return
        for workers in every:
            workers.close(cancel=cancel)
        if threading.current_thread() not in threads:
            for thread in threads:
                thread.join(None if until is None else min(max(0.0, until - time.monotonic()), threading.TIMEOUT_MAX))

    def __enter__(self) -> "Scheduler":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(cancel=error is not None)

    async def __aenter__(self) -> "Scheduler":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # accepted requests need the event loop to get their answers
        await asyncio.to_thread(self.close, cancel=error is not None)

    def _submit(
        self,
        image: ImageInput,
        decoding: Decoding,
        timeout: float | None,
        words: Words | None = None,
        *,
        attention: bool,
    ) -> CaptionFuture:
        require_decoding(decoding)
        self._fork_guard.check()
        fits = timeout is None or (is_number(timeout) and timeout >= 0)
        require(fits, "Scheduler.submit", "timeout", timeout, "a number of seconds from 0, or None")
        while True:
            workers = self._workers
            request = self._request(workers, image, decoding, timeout, words)
            if attention:
                require_attention(workers.model.bundle.manifest)
                request.attention = True
            try:
                workers.submit(request)
            except ClosedError:
                if workers is self._workers:
                    raise
                continue  # swapped in the meantime
            return request.future

    def _request(
        self, workers: Workers, image: ImageInput, decoding: Decoding, timeout: float | None, words: Words | None
    ) -> Request:
        model = workers.model
        model.constraints(shared_options(decoding))
        rows = rows_per_image(decoding, model.bundle.manifest.defaults)
        if rows > self._max_rows:
            name = _widest(decoding, rows)
            reason = f"{name} must be at most {self._max_rows:,}, which is the max_rows of the scheduler"
            raise OptionsError(reason, name=name, value=rows)
        if isinstance(image, bytearray | memoryview):  # the caller may overwrite it before it is read
            image = bytes(image)
        elif isinstance(image, np.ndarray):
            image = image.copy()

        ledger = self._ledger  # a future must not keep the scheduler alive

        def withdraw() -> bool:
            if ledger.interrupted:
                ledger.dropped.put(future)
                return False
            withdrawn = ledger.withdraw(request)
            if withdrawn:
                workers.release(request)
            return withdrawn

        deadline = inf if timeout is None else time.monotonic() + timeout
        future = CaptionFuture(withdraw, model.bundle.manifest.name)
        request = Request(image, decoding, rows, future, words, deadline)
        return request

    def _open(self, captioner: Captioner) -> Workers:
        rows, queue, wait = self._max_rows, self._max_queue, self._max_wait
        workers = Workers(captioner.model, self._ledger, max_rows=rows, max_queue=queue, max_wait=wait)
        close_at_exit(workers, self._fork_guard)
        return workers


def _widest(decoding: Decoding, rows: int) -> str:
    """Returns the option that needs this many rows."""
    if isinstance(decoding, Sample):
        return "num_samples"
    more = isinstance(decoding, Beam) and decoding.beam_size is None and decoding.num_hypotheses == rows
    return "num_hypotheses" if more else "beam_size"
