"""Ways to serve single-image requests: static batches (also of one), and the Scheduler."""

import queue
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Protocol

from engine import Caption, Captioner, Scheduler
from engine.options import Decoding

WINDOW = 0.002  # seconds that static batches and, with a GPU, the Scheduler wait for more requests


class Server(Protocol):
    """A way to serve requests."""

    def submit(self, image: bytes, way: Decoding) -> Future[Caption]:
        """Returns the future of the caption."""
        ...

    def close(self) -> None:
        """Ends its threads; waiting requests are dropped."""
        ...


class Batches:
    """A thread that captions the requests of a time window as a batch: all are answered when the last is done."""

    def __init__(self, captioner: Captioner, *, most: int, window: float) -> None:
        self._captioner, self._most, self._window = captioner, most, window
        self._queue: queue.SimpleQueue[tuple[bytes, Decoding, Future[Caption]] | None] = queue.SimpleQueue()
        self._given_up = False
        self._thread = threading.Thread(target=self._work)
        self._thread.start()

    def submit(self, image: bytes, way: Decoding) -> Future[Caption]:
        """Returns the future of the caption."""
        future: Future[Caption] = Future()
        self._queue.put((image, way, future))
        return future

    def close(self) -> None:
        """Ends the thread."""
        self._given_up = True
        self._queue.put(None)
        self._thread.join()

    def _work(self) -> None:
        while (first := self._queue.get()) is not None and not self._given_up:
            batch, until = [first], time.perf_counter() + self._window
            while len(batch) < self._most:
                try:
                    more = self._queue.get(timeout=max(0.0, until - time.perf_counter()))
                except queue.Empty:
                    break
                if more is None:
                    return
                batch.append(more)
            try:
                captions = self._caption([image for image, _, _ in batch], [way for _, way, _ in batch])
            except Exception as error:
                for _, _, future in batch:
                    future.set_exception(error)
            else:
                for (_, _, future), caption in zip(batch, captions, strict=True):
                    future.set_result(caption)

    def _caption(self, images: Sequence[bytes], ways: Sequence[Decoding]) -> list[Caption]:
        features = self._captioner.encode(images)
        places: dict[Decoding, list[int]] = {}
        for i, way in enumerate(ways):
            places.setdefault(way, []).append(i)
        answers: dict[int, Caption] = {}
        for way, here in places.items():
            answers |= zip(here, self._captioner.caption_features(features[here], way), strict=True)
        return [answers[i] for i in range(len(images))]


class Scheduled:
    """The Scheduler."""

    def __init__(self, captioner: Captioner, *, max_queue: int) -> None:
        self._scheduler = Scheduler(captioner, max_queue=max_queue, max_wait_ms=1000 * WINDOW)

    def submit(self, image: bytes, way: Decoding) -> Future[Caption]:
        """Returns the future of the caption."""
        return self._scheduler.submit(image, way)

    def close(self) -> None:
        """Ends its threads."""
        self._scheduler.close(cancel=True)
