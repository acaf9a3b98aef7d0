"""The process that owns threads: after a fork they are gone, and a call would wait for ever. Knows nothing else."""

import os

from engine.errors import EngineError


class Process:
    """The process that something with threads was opened in; a fork takes the memory along and leaves the threads."""

    def __init__(self, who: str) -> None:
        self._who, self._id = who, os.getpid()

    @property
    def here(self) -> bool:
        """Whether this is the process, and no fork of it."""
        return os.getpid() == self._id

    def require(self) -> None:
        """Raises EngineError in any other process, where a call would wait for ever."""
        if not self.here:
            raise EngineError(
                f"this {self._who} was opened by process {self._id}, and process {os.getpid()} is a fork of that: "
                f"threads do not survive a fork, so open a {self._who} in each process"
            )
