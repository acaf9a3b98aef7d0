"""How workers end that nobody waits for: their scheduler was dropped, a call may not wait, the interpreter exits."""

import _thread
import contextlib
import time
import weakref
from collections.abc import Iterable

from engine.fork_guard import ForkGuard
from engine.scheduling.workers import Workers

AT_EXIT = 10.0
"""Seconds that an exit waits for threads: a run takes less, and one that still reads a file can be left behind."""


def close_in_threads(pools: Iterable[Workers], *, cancel: bool) -> None:
    """Closes workers from other threads: this one may hold the lock."""
    with contextlib.suppress(RuntimeError):  # the interpreter exits, which ends them anyway
        for workers in pools:
            _thread.start_new_thread(workers.close, (), {"cancel": cancel})


def close_when_dropped(scheduler: object, pools: "weakref.WeakSet[Workers]", guard: ForkGuard) -> None:
    """Cancels the requests of workers once nobody has the scheduler any more."""
    weakref.finalize(scheduler, _abandon, pools, guard).atexit = False


def close_at_exit(workers: Workers, guard: ForkGuard) -> None:
    """Cancels the requests of workers when the interpreter exits: it aborts where a thread is in the runtime then."""
    weakref.finalize(workers, _close_now, weakref.ref(workers), guard)


def _abandon(pools: "weakref.WeakSet[Workers]", guard: ForkGuard) -> None:
    if guard.in_owner:
        close_in_threads(list(pools), cancel=True)


def _close_now(reference: "weakref.ref[Workers]", guard: ForkGuard) -> None:
    workers = reference()
    if workers is None or not guard.in_owner:  # None: its last thread has let go of it
        return
    workers.close(cancel=True)
    until = time.monotonic() + AT_EXIT
    for thread in workers.threads:
        thread.join(max(0.0, until - time.monotonic()))
