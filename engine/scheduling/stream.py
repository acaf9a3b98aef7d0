"""A caption word by word, for asyncio. Owns the passing of words from the decoding thread to an event loop."""

import asyncio
import contextlib
import queue
from collections import deque
from collections.abc import Sequence
from types import TracebackType

from engine.result import Caption
from engine.scheduling.future import CaptionFuture, Timings


class Words:
    """A queue of words: a thread adds them, a task of any event loop takes them.

    It has no lock: a finalizer or signal handler that closes it would wait for the thread it interrupted.
    """

    def __init__(self) -> None:
        self._words: deque[str] = deque()
        self.sent = 0  # how many words were added
        self._waiting: deque[tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]] = deque()
        self.closed = False

    def put(self, words: Sequence[str]) -> None:
        """Adds words."""
        self._words.extend(words)
        self.sent += len(words)
        self._wake()

    def close(self) -> None:
        """Marks the end of the words."""
        self.closed = True
        self._wake()

    async def take(self) -> str | None:
        """Returns the next word; None after the last."""
        loop = asyncio.get_running_loop()
        while True:
            closed = self.closed  # read before the words: none are added later
            with contextlib.suppress(IndexError):
                return self._words.popleft()
            if closed:
                return None
            ready = loop.create_future()
            self._waiting.append((loop, ready))
            if not self._words and not self.closed:  # words added earlier woke nobody
                await ready

    def _wake(self) -> None:
        with contextlib.suppress(IndexError):
            while True:
                loop, ready = self._waiting.popleft()
                with contextlib.suppress(RuntimeError):  # its event loop is closed, so nobody waits there
                    loop.call_soon_threadsafe(_resolve, ready)


class CaptionStream:
    """The words of one caption as soon as they are final: `async for word in stream`.

    Iteration raises the request's error. Stopping early (aclose, `async with`, or dropping the stream) cancels the
    request, which ends the iteration.
    """

    def __init__(self, future: CaptionFuture, words: Words, dropped: "queue.SimpleQueue[CaptionFuture]") -> None:
        """The queue `dropped` receives the future of a stream that is garbage collected before its end."""
        self._future = future
        self._words = words
        self._dropped = dropped
        future.add_done_callback(lambda _: words.close())

    @property
    def timings(self) -> Timings | None:
        """How long each stage took, once the caption is done."""
        return self._future.timings

    def __aiter__(self) -> "CaptionStream":
        return self

    async def __anext__(self) -> str:
        word = await self._words.take()
        if word is None:
            if not self._future.cancelled():
                self._future.result()
            raise StopAsyncIteration
        return word

    async def caption(self) -> Caption:
        """Waits for the whole caption and returns it, whether or not its words were read."""
        return await asyncio.shield(asyncio.wrap_future(self._future))

    async def aclose(self) -> None:
        """Cancels the request if it is not done."""
        self._future.cancel()

    async def __aenter__(self) -> "CaptionStream":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def __del__(self) -> None:
        if not self._words.closed:  # cancelling takes locks that this thread may already hold
            self._dropped.put(self._future)


def _resolve(ready: "asyncio.Future[None]") -> None:
    if not ready.done():
        ready.set_result(None)
