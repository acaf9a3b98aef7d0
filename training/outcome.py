"""Exit status and error output of commands. Knows no commands."""

import sys
from collections.abc import Callable

from engine.commands.parser import os_reason


def outcome(
    work: Callable[[], None], *named: type[Exception], interrupted: Callable[[], str] = lambda: "nothing was written"
) -> int:
    """Does the work and returns 0, or 1 for an OSError or an error of the named types, or 130 after Ctrl-C.

    interrupted: returns the message after Ctrl-C: what was written, and how to continue.
    """
    faults: tuple[type[Exception], ...] = (*named, OSError)
    try:
        work()
    except faults as error:
        print(f"error: {os_reason(error) if isinstance(error, OSError) else error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"\ninterrupted: {interrupted()}", file=sys.stderr)
        return 130
    return 0
