"""One child process with its output passed on while it runs, line by line to whoever wants it. Knows no stages.

On a terminal the child gets a terminal of its own, so that it shows its progress bars; elsewhere a pipe.
"""

import codecs
import contextlib
import errno
import os
import pty
import re
import signal
import subprocess
import sys
import termios
from collections.abc import Callable, Sequence

ENVIRONMENT = {
    # glibc gives every large buffer back to the system and has it again page by page: half the time of an eager network
    "MALLOC_MMAP_THRESHOLD_": "1000000000",
    "MALLOC_TRIM_THRESHOLD_": "1000000000",
    "PYTHONUNBUFFERED": "1",  # what is printed comes when it is printed
}
CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def run_module(module: str, arguments: Sequence[str], note: Callable[[str], None], held: Sequence[int] = ()) -> int:
    """Runs `python -m module arguments` to its end and returns its exit status.

    `note` gets every line printed, except the states of progress bars; the child keeps the file descriptors `held`
    open as long as it lives. Ctrl-C reaches the child as one interrupt; when it has ended, KeyboardInterrupt is raised.
    When this process dies the child ends too.
    """
    reading, writing = pty.openpty() if on_terminal() else os.pipe()
    if os.isatty(writing):
        with contextlib.suppress(termios.error, OSError):
            termios.tcsetwinsize(writing, termios.tcgetwinsize(sys.stdout.fileno()))
    child = subprocess.Popen(
        [sys.executable, "-m", "training.recipes.worker", module, *arguments],
        stdin=subprocess.PIPE,  # never written to: see worker
        stdout=writing,
        stderr=writing,
        env={**os.environ, **ENVIRONMENT},
        pass_fds=held,
        process_group=0,  # out of reach of the terminal's Ctrl-C, which would come twice
    )
    os.close(writing)
    interrupted = False
    lines = _Lines(note)
    try:
        while True:
            try:
                content = _read(reading)
                if not content:
                    break
                lines.take(content)
            except KeyboardInterrupt:
                if interrupted:  # a second one does not wait
                    raise
                interrupted = True
                child.send_signal(signal.SIGINT)
        status = child.wait()
    finally:
        if child.poll() is None:
            child.kill()
        child.wait()
        os.close(reading)
        lines.end()
        assert child.stdin is not None
        child.stdin.close()
    if interrupted:
        raise KeyboardInterrupt
    return status


def on_terminal() -> bool:
    """Says whether somebody watches."""
    return sys.stdout.isatty()


def _read(descriptor: int) -> bytes:
    """Waits for output and returns some, nothing at its end."""
    try:
        return os.read(descriptor, 1 << 16)
    except OSError as error:
        if error.errno != errno.EIO:  # how Linux says that the terminal's other side is closed
            raise
        return b""


class _Lines:
    """Passes output on as it comes, and its lines when they are whole."""

    def __init__(self, note: Callable[[str], None]) -> None:
        self._note = note
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._rest = ""

    def take(self, content: bytes) -> None:
        text = self._decoder.decode(content)
        sys.stdout.write(text)
        sys.stdout.flush()
        *lines, self._rest = (self._rest + text).replace("\r\n", "\n").split("\n")
        for line in lines:
            self._say(line)

    def end(self) -> None:
        self._say(self._rest)
        self._rest = ""

    def _say(self, line: str) -> None:
        if shown := CONTROL.sub("", line.rpartition("\r")[2]).rstrip():
            self._note(shown)
