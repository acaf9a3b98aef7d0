"""When requests are late. Whoever calls holds the ledger's lock; knows nothing of threads."""

import heapq
from itertools import count
from math import inf

from engine.scheduling.request import Request


class Deadlines:
    """The requests that have a deadline, the next to be late first. Those answered are forgotten now and then."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Request]] = []
        self._numbers = count()  # of two at once none is compared

    @property
    def next(self) -> float:
        """When the next is late, by time.monotonic(); inf where there is none."""
        return self._heap[0][0] if self._heap else inf

    def add(self, request: Request, unanswered: int) -> None:
        """Adds a request; unanswered: how many there are in all, of which a heap much longer holds others too."""
        if request.deadline == inf:
            return
        if len(self._heap) > 2 * unanswered:
            self._heap = [entry for entry in self._heap if not entry[2].settled]
            heapq.heapify(self._heap)
        heapq.heappush(self._heap, (request.deadline, next(self._numbers), request))

    def passed(self, now: float) -> list[Request]:
        """Returns those whose time is over; some may be answered."""
        passed = []
        while self._heap and (self._heap[0][0] <= now or self._heap[0][2].settled):
            passed.append(heapq.heappop(self._heap)[2])
        return passed
