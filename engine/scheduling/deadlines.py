"""Deadlines of requests. Callers hold the ledger's lock; knows nothing of threads."""

import heapq
from itertools import count
from math import inf

from engine.scheduling.request import Request


class Deadlines:
    """Requests with a deadline, earliest first. Answered ones are removed from time to time."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Request]] = []
        self._numbers = count()  # breaks ties, so that requests are never compared

    @property
    def next(self) -> float:
        """The earliest deadline, by time.monotonic(); inf if there is none."""
        return self._heap[0][0] if self._heap else inf

    def add(self, request: Request, unanswered: int) -> None:
        """Adds a request. unanswered: how many there are in all; a much longer heap contains answered ones too."""
        if request.deadline == inf:
            return
        if len(self._heap) > 2 * unanswered:
            self._heap = [entry for entry in self._heap if not entry[2].settled]
            heapq.heapify(self._heap)
        heapq.heappush(self._heap, (request.deadline, next(self._numbers), request))

    def passed(self, now: float) -> list[Request]:
        """Returns the requests past their deadline; some may be answered."""
        passed = []
        while self._heap and (self._heap[0][0] <= now or self._heap[0][2].settled):
            passed.append(heapq.heappop(self._heap)[2])
        return passed
