"""How a command that writes only at its end ends: its exit status and what is printed of a fault. Knows no commands."""

import sys
from collections.abc import Callable


def outcome(work: Callable[[], None], *named: type[Exception]) -> int:
    """Does the work and returns 0, 1 for an error of a named kind (or an OSError), 130 after Ctrl-C."""
    faults: tuple[type[Exception], ...] = (*named, OSError)
    try:
        work()
    except faults as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted: nothing was written", file=sys.stderr)
        return 130
    return 0
