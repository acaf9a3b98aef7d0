"""How a command ends: its exit status and what is printed of a fault. Knows no commands."""

import sys
from collections.abc import Callable


def outcome(
    work: Callable[[], None], *named: type[Exception], interrupted: Callable[[], str] = lambda: "nothing was written"
) -> int:
    """Does the work and returns 0, 1 for an error of a named kind (or an OSError), 130 after Ctrl-C.

    interrupted: says, when it comes to that, what Ctrl-C leaves; a command that writes as it goes says how to go on.
    """
    faults: tuple[type[Exception], ...] = (*named, OSError)
    try:
        work()
    except faults as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"\ninterrupted: {interrupted()}", file=sys.stderr)
        return 130
    return 0
