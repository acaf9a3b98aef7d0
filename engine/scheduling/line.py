"""The threads of one captioner: some read and encode, one writes. Owns queue, rows and deadlines; searches nothing."""

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache, partial
from math import inf

import numpy as np

from engine.captioner import Captioner
from engine.errors import ClosedError, DeadlineError, OverloadedError
from engine.images.pipeline import Encoded
from engine.runtime.encoder import LANE_IMAGES
from engine.scheduling.deadlines import Deadlines
from engine.scheduling.decoder import Answer, Decoder, failure, rules_of
from engine.scheduling.request import Ledger, Request

A_DAY = 86_400.0
"""Seconds after which a longer wait looks up: the clock of a lock has an end."""

READING = 2
"""Threads before a device: one reads the images of a batch while the one before is encoded."""


class Line:
    """Takes requests through encoder and decoder; several lines can share a ledger and its lock.

    A request is queued until an encoder takes it, which needs its rows to be free, and holds them until it is answered.
    """

    def __init__(self, captioner: Captioner, ledger: Ledger, *, max_rows: int, max_queue: int, max_wait: float) -> None:
        self.captioner = captioner
        self.check = lru_cache(maxsize=256)(partial(rules_of, captioner))
        self._ledger = ledger
        self._max_rows, self._max_queue, self._max_wait = max_rows, max_queue, max_wait
        self._lanes = captioner._graphs.encoder.lanes
        self._to_encode = threading.Condition(ledger.lock)
        self._to_decode = threading.Condition(ledger.lock)
        self._queue: deque[Request] = deque()
        self._encoded: list[tuple[Request, np.ndarray]] = []
        self._gone: list[Request] = []  # taken, then cancelled: to be dropped
        self._holding: set[Request] = set()  # rows
        self._rows = 0
        self._encoding = 0  # threads at it
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
        except BaseException:  # no thread can be started, or Ctrl+C: those that were would wait for ever
            self.end()
            for thread in self.threads:
                if thread.ident is not None:
                    thread.join()
            raise

    def put(self, request: Request) -> None:
        """Queues a request. Raises OverloadedError, ClosedError."""
        if len(self._queue) >= self._max_queue:
            self._ledger.cancel_dropped()  # they may hold a place
        with self._ledger.lock:
            if self._closed:
                raise ClosedError("the scheduler is closed and takes no more requests")
            if len(self._queue) >= self._max_queue:
                self._ledger.count("refused")
                raise OverloadedError(f"{self._max_queue} requests are waiting already (max_queue): try again later")
            self._ledger.count("accepted")
            self._queue.append(request)
            self._to_encode.notify()
            self._deadlines.add(request, unanswered=len(self._queue) + len(self._holding))
            if request.deadline < inf:
                self._to_decode.notify()

    def forget(self, request: Request) -> None:
        """Frees what a request holds that was cancelled; called without the lock."""
        with self._ledger.lock:
            if request in self._holding:
                self._gone.append(request)
                self._to_decode.notify()
            else:
                self._unqueue(request)

    def load(self) -> tuple[int, int]:
        """Returns how many requests are queued and how many rows are in use; the caller holds the lock."""
        return len(self._queue), self._rows

    def end(self, *, cancel: bool = False) -> None:
        """Takes no more requests; those accepted are finished, or given up."""
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
            self.forget(request)

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException:  # without this thread nothing would be answered any more
            self.end(cancel=True)
            raise
        finally:
            self._ready.set()

    def _unqueue(self, request: Request) -> None:
        with contextlib.suppress(ValueError):  # it may have failed and not been told yet
            self._queue.remove(request)
        self._to_encode.notify_all()
        self._to_decode.notify()

    # --- encoding

    def _encode(self) -> None:
        while self._encode_some():
            pass  # what was at hand is let go before the next wait, whoever it kept

    def _encode_some(self) -> bool:
        """Waits for requests and encodes them; False when there will be no more."""
        requests = self._take()
        if requests:
            alone = len(requests) == 1 and self._encoding == 1 and not self._queue
            try:
                encoded = self.captioner._pipeline.encode([request.image for request in requests], alone=alone)
            except BaseException as error:  # reading a file runs code of its owner, which may exit
                self._answer((request, failure(error, self.captioner)) for request in requests)
            else:
                self._pass_on(requests, encoded)
            with self._ledger.lock:
                self._encoding -= 1
        return bool(requests)

    def _take(self) -> list[Request]:
        """Waits for requests and returns those to encode next; none when there will be no more."""
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
        """Returns how many images one encoder takes: on a CPU more only where there is more than enough for all."""
        if not self._lanes:
            return self.captioner.batch_size
        return min(LANE_IMAGES, -(-len(self._queue) // (2 * self._lanes)))

    def _wait(self) -> float:
        """Returns how long to wait for more images. A CPU gains next to nothing by a batch, so nobody waits there."""
        if self._lanes or self._closed or len(self._queue) >= self.captioner.batch_size:
            return 0.0
        return self._queue[0].arrived + self._max_wait - time.monotonic()

    def _pass_on(self, requests: list[Request], encoded: Encoded) -> None:
        self._ledger.encodes(len(requests))
        good = [request for request, fault in zip(requests, encoded.faults, strict=True) if fault is None]
        faults = [
            (request, fault) for request, fault in zip(requests, encoded.faults, strict=True) if fault is not None
        ]
        features, now = self.captioner._graphs.for_decoder(encoded.features), time.monotonic()
        for request in good:
            request.encoded, request.image = now, b""
        with self._ledger.lock:
            for i, request in enumerate(good):
                self._encoded.append((request, features[i : i + 1]))  # type: ignore[arg-type]
            self._to_decode.notify()
        self._answer((request, fault.at(None)) for request, fault in faults)  # no entry of any batch

    # --- decoding

    def _decode(self) -> None:
        decoder = Decoder(self.captioner, self._max_rows, self.check)
        decoder.warm_up()
        self._ready.set()
        while self._decode_step(decoder):
            pass

    def _decode_step(self, decoder: Decoder) -> bool:
        """Waits for work and does a step of it; False when all is done."""
        self._ledger.cancel_dropped()
        work = self._work(decoder)
        if work is None:
            return False
        arrivals, gone, late = work
        for request in late:
            self._ledger.settle(request, DeadlineError("the time for this request was over before it was done"))
        try:
            decoder.drop(gone)
            settled = {request for request, _ in arrivals if request.settled}  # read once: a cancel comes at any time
            self._free([*gone, *settled])
            answers = decoder.admit([arrival for arrival in arrivals if arrival[0] not in settled])
            if len(decoder):
                done, rows = decoder.step()
                answers += done
                self._ledger.steps(rows)
        except Exception as error:  # what nobody foresaw: all that are decoded fail, and the next ones go on
            decoder.clear()
            with self._ledger.lock:
                lost = [request for request in self._holding if request.encoded]
            answers = [(request, failure(error, self.captioner)) for request in lost]
        self._answer(answers)
        return True

    def _work(self, decoder: Decoder) -> tuple[list[tuple[Request, np.ndarray]], list[Request], list[Request]] | None:
        """Waits for work and returns who arrived, who is gone and who is late; None when all is done."""
        passed: list[Request] = []  # which are let go without the lock
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
                if self._encoded or self._gone or late or len(decoder):
                    arrivals, self._encoded = self._encoded, []
                    gone, self._gone = self._gone, []
                    return arrivals, gone, late
                if self._closed and not self._queue and not self._holding:
                    return None
                self._to_decode.wait(min(self._deadlines.next - now, A_DAY))

    def _answer(self, answers: Iterable[Answer]) -> None:
        """Frees the rows of requests and answers them."""
        listed = list(answers)
        self._free([request for request, _ in listed])
        for request, answer in listed:
            self._ledger.settle(request, answer)

    def _free(self, requests: Sequence[Request]) -> None:
        if not requests:  # most steps: waking the encoders costs as much as a step
            return
        with self._ledger.lock:
            for request in requests:
                if request in self._holding:
                    self._holding.remove(request)
                    self._rows -= request.rows
            self._to_encode.notify_all()
            if self._closed:
                self._to_decode.notify_all()
