"""How lines end that nobody waits for: their scheduler was dropped, a call may not wait, or the interpreter exits."""

import _thread
import contextlib
import time
import weakref
from collections.abc import Iterable

from engine.fork_guard import Process
from engine.scheduling.line import Line

AT_EXIT = 10.0
"""Seconds that an exit waits for threads: a run takes less, and one that still reads a file can be left behind."""


def end_elsewhere(lines: Iterable[Line], *, cancel: bool) -> None:
    """Ends lines in other threads: this one may hold the lock."""
    with contextlib.suppress(RuntimeError):  # the interpreter exits, which ends them anyway
        for line in lines:
            _thread.start_new_thread(line.end, (), {"cancel": cancel})


def end_when_dropped(scheduler: object, lines: "weakref.WeakSet[Line]", process: Process) -> None:
    """Gives up what is in the lines once nobody has the scheduler any more."""
    weakref.finalize(scheduler, _abandon, lines, process).atexit = False


def end_at_exit(line: Line, process: Process) -> None:
    """Gives up what is in a line when the interpreter exits: it aborts where a thread is in the runtime then."""
    weakref.finalize(line, _leave, weakref.ref(line), process)


def _abandon(lines: "weakref.WeakSet[Line]", process: Process) -> None:
    if process.here:
        end_elsewhere(list(lines), cancel=True)


def _leave(reference: "weakref.ref[Line]", process: Process) -> None:
    line = reference()
    if line is None or not process.here:  # None: its last thread has let go of it
        return
    line.end(cancel=True)
    until = time.monotonic() + AT_EXIT
    for thread in line.threads:
        thread.join(max(0.0, until - time.monotonic()))
