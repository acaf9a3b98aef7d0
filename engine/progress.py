"""The progress bar of a command line. Owns one line of a terminal; knows nothing of images."""

import time
from typing import TextIO


class Progress:
    """A line on standard error that says how far the work is; nothing at all where that is no terminal."""

    def __init__(self, total: int, stream: TextIO) -> None:
        self.total, self.stream, self.start = total, stream, time.monotonic()
        self.width = 0  # of the line on the screen
        self.on = stream.isatty()

    def show(self, done: int) -> None:
        """Draws the line; `clear` must come between two calls."""
        if self.on and done < self.total:
            bar = "#" * (30 * done // self.total)
            rate = done / max(time.monotonic() - self.start, 1e-3)
            line = f"[{bar:<30}] {done:,} of {self.total:,} images, {rate:.1f} a second"
            self.width = len(line)
            print(line, end="", file=self.stream, flush=True)

    def clear(self) -> None:
        """Wipes the line, so that others may be printed."""
        if self.width:
            print(f"\r{' ' * self.width}\r", end="", file=self.stream, flush=True)
            self.width = 0
