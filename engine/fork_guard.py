"""Refuses calls in a fork of the process that owns the threads: they are gone there, and a call would wait for ever."""

import os

from engine.errors import EngineError


class ForkGuard:
    """Remembers the process that opened something with threads: a fork copies its memory but not its threads."""

    def __init__(self, who: str) -> None:
        self._who, self._id = who, os.getpid()

    @property
    def in_owner(self) -> bool:
        """Whether this is the process that opened it, and no fork of it."""
        return os.getpid() == self._id

    def check(self) -> None:
        """Raises EngineError in any other process, where a call would wait for ever."""
        if not self.in_owner:
            raise EngineError(
                f"this {self._who} was opened by process {self._id}, and process {os.getpid()} is a fork of that: "
                f"threads do not survive a fork, so open a {self._who} in each process"
            )
