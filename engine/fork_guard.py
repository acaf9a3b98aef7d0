"""Refuses calls in a forked child: its copy has no threads, so a call would wait for ever."""

import os

from engine.errors import EngineError


class ForkGuard:
    """Remembers which process opened an object with threads: a fork copies its memory but not its threads."""

    def __init__(self, who: str) -> None:
        self._who, self._id = who, os.getpid()

    @property
    def in_owner(self) -> bool:
        """Whether this is the process that opened it, not a fork."""
        return os.getpid() == self._id

    def check(self) -> None:
        """Raises EngineError in any other process, where a call would wait for ever."""
        if not self.in_owner:
            raise EngineError(
                f"this {self._who} was opened in process {self._id} and cannot be used in its fork {os.getpid()}: "
                f"threads do not survive a fork, so open a {self._who} in each process"
            )
