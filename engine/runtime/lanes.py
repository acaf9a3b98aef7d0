"""Lends what a call needs to itself for a while, and keeps it for the next call."""

import threading
import weakref
from collections.abc import Callable
from typing import Any, Generic, TypeVar

Lane = TypeVar("Lane")


class Lanes(Generic[Lane]):
    """Lends lanes and makes a new one where none is free. A thread gets the one back that it gave last.

    There are never more than were lent at once. ONNX Runtime keeps CUDA graphs for each thread: a lane that comes to
    another thread is captured there once more.
    """

    def __init__(self, make: Callable[[], Lane]) -> None:
        self._make = make
        self._free: list[tuple[int, Lane]] = []
        self._lock = threading.Lock()

    def lend(self, borrower: Any) -> Lane:
        """Returns a lane that is the borrower's own until the borrower is no more."""
        thread = threading.get_ident()
        with self._lock:
            places = [i for i, (giver, _) in enumerate(self._free) if giver == thread] or range(len(self._free))
            lane = self._free.pop(places[-1])[1] if len(places) else self._make()
        weakref.finalize(borrower, self._give, thread, lane).atexit = False
        return lane

    def _give(self, thread: int, lane: Lane) -> None:
        self._free.append((thread, lane))  # no lock: a finalizer may run while this thread holds it
