"""The threads of one model: some read and encode images, one decodes. Owns queue, rows and deadlines."""

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from math import inf

import numpy as np

from engine.errors import ClosedError, DeadlineError, OverloadedError
from engine.images.pipeline import Encoded
from engine.model import Model
from engine.runtime.encoder import LANE_IMAGES
from engine.scheduling.deadlines import Deadlines
from engine.scheduling.request import Ledger, Request
from engine.scheduling.running_batch import Outcome, RunningBatch, as_engine_error

A_DAY = 86_400.0
"""Longest wait in seconds before checking again: locks limit their timeouts."""

READING = 2
"""Encoder threads with a GPU: one reads the next batch while the other encodes."""


class Workers:
    """Runs requests through encoder and decoder. The workers of several models can share a ledger and its lock.

    A request is queued until an encoder takes it, which requires free rows. It keeps those rows until it is answered.
    """

    def __init__(self, model: Model, ledger: Ledger, *, max_rows: int, max_queue: int, max_wait: float) -> None:
        self.model = model
        self._ledger = ledger
        self._max_rows, self._max_queue, self._max_wait = max_rows, max_queue, max_wait
        self._lanes = model.encoder.lanes
        self._to_encode = threading.Condition(ledger.lock)
        self._to_decode = threading.Condition(ledger.lock)
        self._queue: deque[Request] = deque()
        self._encoded: list[tuple[Request, np.ndarray]] = []
        self._gone: list[Request] = []  # cancelled after an encoder took them: to be dropped
        self._holding: set[Request] = set()  # requests that have rows
        self._rows = 0
        self._encoding = 0  # number of threads encoding
        self._deadlines = Deadlines()
        self._closed = False
        targets = [self._encode] * (self._lanes or READING) + [self._decode]
        names = [f"scheduler-encoder-{i}" for i in range(len(targets) - 1)] + ["scheduler-decoder"]
        self.threads = [
            threading.Thread(target=self._guarded, args=(target,), name=name, daemon=True)
            for target, name in zip(targets, names, strict=True)
        ]
        self._ready = threading.Event()
        try:
            for thread in self.threads:
                thread.start()
            self._ready.wait()
        except BaseException:  # a thread cannot be started, or Ctrl+C: the others would wait for ever
            self.close()
            for thread in self.threads:
                if thread.ident is not None:
                    thread.join()
            raise

    def submit(self, request: Request) -> None:
        """Queues a request. Raises OverloadedError, ClosedError."""
        if len(self._queue) >= self._max_queue:
            self._ledger.cancel_dropped()  # they may take up places
        with self._ledger.lock:
            if self._closed:
                raise ClosedError("the scheduler is closed and accepts no more requests")
            if len(self._queue) >= self._max_queue:
                self._ledger.count("refused")
                raise OverloadedError(f"{self._max_queue} requests are already waiting (max_queue): try again later")
            self._ledger.count("accepted")
            self._queue.append(request)
            self._to_encode.notify()
            self._deadlines.add(request, unanswered=len(self._queue) + len(self._holding))
            if request.deadline < inf:
                self._to_decode.notify()

    def release(self, request: Request) -> None:
        """Frees the rows or queue place of a cancelled request; called without the lock."""
        with self._ledger.lock:
            if request in self._holding:
                self._gone.append(request)
                self._to_decode.notify()
            else:
                self._unqueue(request)

    def usage(self) -> tuple[int, int]:
        """Returns how many requests are queued and how many rows are in use; the caller holds the lock."""
        return len(self._queue), self._rows

    def close(self, *, cancel: bool = False) -> None:
        """Stops accepting requests; those accepted are finished, or cancelled."""
        with self._ledger.lock:
            self._closed = True
            given_up = [*self._queue, *self._holding] if cancel else []
            if cancel:
                self._queue.clear()
            self._to_encode.notify_all()
            self._to_decode.notify_all()
        for request in given_up:
            gone = ClosedError("the scheduler was closed before this request was done")
            self._ledger.settle(request, gone, given_up=True)
            self.release(request)

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException:  # without this thread no request would be answered
            self.close(cancel=True)
            raise
        finally:
            self._ready.set()

    def _unqueue(self, request: Request) -> None:
        with contextlib.suppress(ValueError):  # it may have failed a moment ago
            self._queue.remove(request)
        self._to_encode.notify_all()
        self._to_decode.notify()

    # --- encoding

    def _encode(self) -> None:
        while self._encode_some():
            pass  # drops all references before the next wait

    def _encode_some(self) -> bool:
        """Waits for requests and encodes them; returns False when there will be no more."""
        requests = self._take()
        if requests:
            alone = len(requests) == 1 and self._encoding == 1 and not self._queue
            try:
                encoded = self.model.encode([request.image for request in requests], alone=alone)
            except BaseException as error:  # reading may run the caller's code, which may raise SystemExit
                self._finish((request, as_engine_error(error, self.model)) for request in requests)
            else:
                self._pass_on(requests, encoded)
            with self._ledger.lock:
                self._encoding -= 1
        return bool(requests)

    def _take(self) -> list[Request]:
        """Waits for requests and returns those to encode next; an empty list when there will be no more."""
        with self._ledger.lock:
            while not self._fitting() or (wait := self._wait()) > 0:
                if self._closed and not self._queue:
                    self._to_encode.notify_all()
                    self._to_decode.notify_all()
                    return []
                self._to_encode.wait(min(wait, A_DAY) if self._fitting() else None)
            now, taken = time.monotonic(), []
            for _ in range(self._share()):
                if not self._fitting():
                    break
                request = self._queue.popleft()
                request.taken = now
                self._holding.add(request)
                self._rows += request.rows
                taken.append(request)
            self._encoding += 1
            if self._queue:
                self._to_encode.notify()
            return taken

    def _fitting(self) -> bool:
        return bool(self._queue) and self._rows + self._queue[0].rows <= self._max_rows

    def _share(self) -> int:
        """Returns how many images one encoder takes: on a CPU more than one only if all encoders have enough to do."""
        if not self._lanes:
            return self.model.batch_size
        return min(LANE_IMAGES, -(-len(self._queue) // (2 * self._lanes)))

    def _wait(self) -> float:
        """Returns how long to wait for more images: 0 on a CPU, which gains almost nothing from batches."""
        if self._lanes or self._closed or len(self._queue) >= self.model.batch_size:
            return 0.0
        return self._queue[0].arrived + self._max_wait - time.monotonic()

    def _pass_on(self, requests: list[Request], encoded: Encoded) -> None:
        self._ledger.encodes(len(requests))
        read = list(zip(requests, encoded.errors, strict=True))
        good = [request for request, error in read if error is None]
        features, now = self.model.for_decoder(encoded.features), time.monotonic()
        for request in good:
            request.encoded, request.image = now, b""
        with self._ledger.lock:
            for i, request in enumerate(good):
                self._encoded.append((request, features[i : i + 1]))  # type: ignore[arg-type]
            self._to_decode.notify()
        self._finish((request, error.at(None)) for request, error in read if error is not None)  # it is in no batch

    # --- decoding

    def _decode(self) -> None:
        batch = RunningBatch(self.model, self._max_rows)
        batch.warm_up()
        self._ready.set()
        while self._decode_step(batch):
            pass

    def _decode_step(self, batch: RunningBatch) -> bool:
        """Waits for work and runs one step; returns False when everything is done."""
        self._ledger.cancel_dropped()
        work = self._work(batch)
        if work is None:
            return False
        arrivals, gone, late = work
        for request in late:
            self._ledger.settle(request, DeadlineError("the request was not done within its timeout: allow more time"))
        try:
            batch.drop(gone)
            settled = {request for request, _ in arrivals if request.settled}  # read once: it may change any time
            self._free([*gone, *settled])
            outcomes = batch.admit([arrival for arrival in arrivals if arrival[0] not in settled])
            if len(batch):
                done, rows = batch.step()
                outcomes += done
                self._ledger.steps(rows)
        except Exception as error:  # unexpected: all requests being decoded fail, later ones continue
            batch.clear()
            with self._ledger.lock:
                lost = [request for request in self._holding if request.encoded]
            outcomes = [(request, as_engine_error(error, self.model)) for request in lost]
        self._finish(outcomes)
        return True

    def _work(
        self, batch: RunningBatch
    ) -> tuple[list[tuple[Request, np.ndarray]], list[Request], list[Request]] | None:
        """Waits for work; returns arrived, cancelled and late requests, or None when everything is done."""
        passed: list[Request] = []  # released without the lock
        with self._ledger.lock:
            while True:
                now = time.monotonic()
                passed += self._deadlines.passed(now)
                late = [request for request in passed if not request.settled]
                for request in late:
                    if request in self._holding:
                        self._gone.append(request)
                    else:
                        self._unqueue(request)
                if self._encoded or self._gone or late or len(batch):
                    arrivals, self._encoded = self._encoded, []
                    gone, self._gone = self._gone, []
                    return arrivals, gone, late
                if self._closed and not self._queue and not self._holding:
                    return None
                self._to_decode.wait(min(self._deadlines.next - now, A_DAY))

    def _finish(self, outcomes: Iterable[Outcome]) -> None:
        """Frees the rows of requests and sets their futures."""
        listed = list(outcomes)
        self._free([request for request, _ in listed])
        for request, outcome in listed:
            self._ledger.settle(request, outcome)

    def _free(self, requests: Sequence[Request]) -> None:
        if not requests:  # as in most steps: waking the encoders would cost as much as a step
            return
        with self._ledger.lock:
            for request in requests:
                if request in self._holding:
                    self._holding.remove(request)
                    self._rows -= request.rows
            self._to_encode.notify_all()
            if self._closed:
                self._to_decode.notify_all()
