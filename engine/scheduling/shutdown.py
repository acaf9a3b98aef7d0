"""Ends workers when nobody waits: the scheduler was dropped, a call may not wait, or the interpreter exits."""

import _thread
import contextlib
import time
import weakref
from collections.abc import Iterable

from engine.fork_guard import ForkGuard
from engine.scheduling.workers import Workers

AT_EXIT = 10.0
"""Seconds that an exit waits for threads: a run takes less, and a thread still reading a file can be abandoned."""


def close_in_threads(pools: Iterable[Workers], *, cancel: bool) -> None:
    """Closes workers from another thread, since this one may hold the lock."""
    with contextlib.suppress(RuntimeError):  # the interpreter is exiting, which ends them anyway
        for workers in pools:
            _thread.start_new_thread(workers.close, (), {"cancel": cancel})


def close_when_dropped(scheduler: object, pools: "weakref.WeakSet[Workers]", guard: ForkGuard) -> None:
    """Cancels the requests of workers once the scheduler is garbage."""
    weakref.finalize(scheduler, _abandon, pools, guard).atexit = False


def close_at_exit(workers: Workers, guard: ForkGuard) -> None:
    """Cancels the requests of workers at exit: the interpreter aborts if a thread is still inside ONNX Runtime."""
    weakref.finalize(workers, _close_now, weakref.ref(workers), guard)


def _abandon(pools: "weakref.WeakSet[Workers]", guard: ForkGuard) -> None:
    if guard.in_owner:
        close_in_threads(list(pools), cancel=True)


def _close_now(reference: "weakref.ref[Workers]", guard: ForkGuard) -> None:
    workers = reference()
    if workers is None or not guard.in_owner:  # None: its last thread has ended
        return
    workers.close(cancel=True)
    until = time.monotonic() + AT_EXIT
    for thread in workers.threads:
        thread.join(max(0.0, until - time.monotonic()))
