"""The progress bar of a command line. Owns one line of a terminal; knows nothing of the work."""

import time
from typing import TextIO


class Progress:
    """A line on standard error that says how far the work is; nothing at all where that is no terminal.

    words: what stands behind the bar, with places for done, total and rate (of what is done, a second).
    """

    def __init__(self, total: int, stream: TextIO, words: str) -> None:
        self.total, self.stream, self.words, self.start = total, stream, words, time.monotonic()
        self.width = 0  # of the line on the screen
        self.on = stream.isatty()

    def show(self, done: int) -> None:
        """Draws the line; `clear` must come between two calls."""
        if self.on and done < self.total:
            bar = "#" * (30 * done // self.total)
            rate = done / max(time.monotonic() - self.start, 1e-3)
            line = f"[{bar:<30}] {self.words.format(done=done, total=self.total, rate=rate)}"
            self.width = len(line)
            print(line, end="", file=self.stream, flush=True)

    def clear(self) -> None:
        """Wipes the line, so that others may be printed."""
        if self.width:
            print(f"\r{' ' * self.width}\r", end="", file=self.stream, flush=True)
            self.width = 0
