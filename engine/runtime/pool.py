"""A pool of things that one call uses at a time, such as memory and bindings; later calls reuse them."""

import threading
import weakref
from collections.abc import Callable
from typing import Any, Generic, TypeVar

Item = TypeVar("Item")


class Pool(Generic[Item]):
    """Lends items, and makes a new one if none is free. A thread gets back the one that it returned last.

    There are never more items than were borrowed at once. ONNX Runtime keeps CUDA graphs per thread, so an item
    that moves to another thread is captured there again.
    """

    def __init__(self, make: Callable[[], Item]) -> None:
        self._make = make
        self._free: list[tuple[int, Item]] = []
        self._lock = threading.Lock()

    def borrow(self, borrower: Any) -> Item:
        """Returns an item for the borrower alone; it comes back when the borrower is freed."""
        thread = threading.get_ident()
        with self._lock:
            places = [i for i, (giver, _) in enumerate(self._free) if giver == thread] or range(len(self._free))
            item = self._free.pop(places[-1])[1] if len(places) else self._make()
        weakref.finalize(borrower, self._return, thread, item).atexit = False
        return item

    def _return(self, thread: int, item: Item) -> None:
        self._free.append((thread, item))  # no lock: a finalizer may run while this thread holds it
