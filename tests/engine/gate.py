"""A gate that holds threads at a known place, so that a test of what comes at once waits for no time."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

TIMEOUT = 60  # seconds that no answer takes


class Gate:
    """Holds whoever calls a method until it is opened, or lets him fail."""

    def __init__(self) -> None:
        self.reached = threading.Semaphore(0)
        self.open = threading.Event()
        self.error: Exception | None = None

    def around(self, method: Callable[..., Any]) -> Callable[..., Any]:
        def guarded(*args: Any, **kwargs: Any) -> Any:
            self.reached.release()
            assert self.open.wait(TIMEOUT)
            if self.error is not None:
                error, self.error = self.error, None
                raise error
            return method(*args, **kwargs)

        return guarded

    def wait(self) -> None:
        """Waits until somebody stands at it."""
        assert self.reached.acquire(timeout=TIMEOUT)


@contextmanager
def closed_before(monkeypatch: pytest.MonkeyPatch, target: Any, method: str) -> Iterator[Gate]:
    """A closed gate before every call of a method."""
    gate = Gate()
    monkeypatch.setattr(target, method, gate.around(getattr(target, method)))
    yield gate
    gate.open.set()
