"""The index of a service, asked from its event loop: in a few threads, within a time. Knows no HTTP."""

import asyncio
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np

from engine import PhotoIndex, Scheduler, StoreError
from serving.http.logs import log
from serving.http.problems import RETRY, Problem

T = TypeVar("T")
THREADS = 4
ROOM = 256  # questions that wait or are worked on, as many as images by default


class Photographs:
    """An index of photographs. When the scheduler changes its model, the model of the index changes too.

    Photographs that the model before captioned are then not found until `python -m engine index` captions them again.
    """

    def __init__(self, index: PhotoIndex, scheduler: Scheduler, timeout: float) -> None:
        """timeout: seconds for a question."""
        self.timeout = timeout
        self._scheduler = scheduler
        self._index = index
        self._users: Counter[PhotoIndex] = Counter()
        self._lock = threading.Lock()
        self._room = threading.BoundedSemaphore(ROOM)
        self._pool: ThreadPoolExecutor | None = None

    @property
    def compares(self) -> bool:
        """Whether photographs can be compared with one another."""
        return bool(self._scheduler.captioner.bundle.manifest.vector_size)

    async def ask(self, question: Callable[[PhotoIndex], T]) -> T:
        """Returns what a question to the index answers. Raises what it raises, and Problem.

        Cancelling this, or the end of the time, gives up a question that waits; one that runs goes on to its end.
        """
        if not self._room.acquire(blocking=False):
            raise Problem("overloaded", "too many searches are waiting: try again later", RETRY)
        work = self._threads().submit(self._answer, question)
        work.add_done_callback(lambda _: self._room.release())
        try:
            async with asyncio.timeout(self.timeout):
                return await asyncio.wrap_future(work)
        except TimeoutError:
            told = f"the index did not answer within {self.timeout:g} seconds"
            raise Problem("deadline", told) from None

    async def warm_up(self) -> None:
        """Reads what the first search would have to read."""
        try:
            await self.ask(_search_once)
        except (StoreError, Problem) as error:  # searches will say so, and captions work all the same
            log.error("the index could not be read", extra={"why": str(error)})

    def close(self) -> None:
        """Waits for what runs, gives up what waits, and closes the index. A question later opens it again."""
        with self._lock:
            pool, self._pool = self._pool, None
        if pool:
            pool.shutdown(cancel_futures=True)
        self._index.close()

    def _threads(self) -> ThreadPoolExecutor:
        with self._lock:
            self._pool = self._pool or ThreadPoolExecutor(THREADS, "photographs")
            return self._pool

    def _answer(self, question: Callable[[PhotoIndex], T]) -> T:
        index = self._take()
        try:
            return question(index)
        finally:
            self._give_back(index)

    def _take(self) -> PhotoIndex:
        with self._lock:
            captioner = self._scheduler.captioner
            if self._index.captioner is not captioner:
                before, self._index = self._index, PhotoIndex(self._index.path, captioner)
                self._close_unused(before)
            self._users[self._index] += 1
            return self._index

    def _give_back(self, index: PhotoIndex) -> None:
        with self._lock:
            self._users[index] -= 1
            if index is not self._index:
                self._close_unused(index)

    def _close_unused(self, index: PhotoIndex) -> None:
        if not self._users[index]:
            del self._users[index]
            index.close()


def _search_once(index: PhotoIndex) -> None:
    index.search("a photograph", 1)
    if index.captioner.bundle.manifest.vector_size:
        index.similar(np.zeros((8, 8, 3), np.uint8), 1)
