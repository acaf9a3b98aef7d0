"""A caption word by word, for asyncio. Owns the way of words from the decoding thread into an event loop."""

import asyncio
import contextlib
import queue
from collections import deque
from collections.abc import Sequence
from types import TracebackType

from engine.result import Caption
from engine.scheduling.future import CaptionFuture, Timings


class Words:
    """Words on their way: a thread puts them in, a task of any event loop takes them out.

    No lock: a finalizer or a signal handler that closes would wait for the thread that it has interrupted.
    """

    def __init__(self) -> None:
        self._words: deque[str] = deque()
        self._sent = 0
        self._waiting: deque[tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]] = deque()
        self.closed = False

    @property
    def sent(self) -> int:
        """How many words were put in."""
        return self._sent

    def put(self, words: Sequence[str]) -> None:
        """Adds words."""
        self._words.extend(words)
        self._sent += len(words)
        self._wake()

    def close(self) -> None:
        """Says that no more will come."""
        self.closed = True
        self._wake()

    async def take(self) -> str | None:
        """Returns the next word; None after the last."""
        loop = asyncio.get_running_loop()
        while True:
            closed = self.closed  # before the words: none comes after it
            with contextlib.suppress(IndexError):
                return self._words.popleft()
            if closed:
                return None
            ready = loop.create_future()
            self._waiting.append((loop, ready))
            if not self._words and not self.closed:  # what came before that has woken nobody
                await ready

    def _wake(self) -> None:
        with contextlib.suppress(IndexError):
            while True:
                loop, ready = self._waiting.popleft()
                with contextlib.suppress(RuntimeError):  # its event loop is closed: nobody waits there any more
                    loop.call_soon_threadsafe(_resolve, ready)


class CaptionStream:
    """The words of one caption, as soon as they stand: `async for word in stream`.

    Iteration raises what befell the request. Leaving early (aclose, `async with`, or dropping the stream) cancels it,
    which ends the words.
    """

    def __init__(self, future: CaptionFuture, words: Words, dropped: "queue.SimpleQueue[CaptionFuture]") -> None:
        """Dropped takes the future of a stream that is let go before its end."""
        self._future = future
        self._words = words
        self._dropped = dropped
        future.add_done_callback(lambda _: words.close())

    @property
    def timings(self) -> Timings | None:
        """Where the time went, once the caption is there."""
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
        """Returns the whole caption when it is there, whether or not its words were taken."""
        return await asyncio.shield(asyncio.wrap_future(self._future))

    async def aclose(self) -> None:
        """Cancels the request, if it is not done."""
        self._future.cancel()

    async def __aenter__(self) -> "CaptionStream":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def __del__(self) -> None:
        if not self._words.closed:  # a cancel takes locks, which the thread that collects the garbage may hold
            self._dropped.put(self._future)


def _resolve(ready: "asyncio.Future[None]") -> None:
    if not ready.done():
        ready.set_result(None)
