"""A progress bar in a terminal. Knows nothing of the work."""

import time
from typing import TextIO


class Progress:
    """One line on a stream that shows how much is done; nothing if the stream is not a terminal.

    words: the text after the bar, with the placeholders done, total and rate (done per second).
    """

    def __init__(self, total: int, stream: TextIO, words: str) -> None:
        self.total, self.stream, self.words, self.start = total, stream, words, time.monotonic()
        self.width = 0  # of the line on the screen
        self.on = stream.isatty()

    def show(self, done: int) -> None:
        """Draws the line; call `clear` before the next one."""
        if self.on and done < self.total:
            bar = "#" * (30 * done // self.total)
            rate = done / max(time.monotonic() - self.start, 1e-3)
            line = f"[{bar:<30}] {self.words.format(done=done, total=self.total, rate=rate)}"
            self.width = len(line)
            print(line, end="", file=self.stream, flush=True)

    def clear(self) -> None:
        """Removes the line, so that others can be printed."""
        if self.width:
            print(f"\r{' ' * self.width}\r", end="", file=self.stream, flush=True)
            self.width = 0
