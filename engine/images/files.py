"""Opens paths of images safely. Owns pipes, devices and sockets; knows nothing of what is in a file."""

import io
import os
import select
import stat
import time
from pathlib import Path
from typing import IO

from engine.errors import RefusalError

PIPE_SECONDS = 30.0
"""Time limit for a pipe's last byte: a pipe in a folder may have no writer."""
PIPE_BYTES = 512_000_000
CHUNK = 1 << 20
KINDS = ((stat.S_ISSOCK, "socket"), (stat.S_ISCHR, "device"), (stat.S_ISBLK, "device"))


def open_path(path: Path) -> IO[bytes]:
    """Opens a regular file, or reads a pipe to its end. Raises RefusalError, and OSError from opening."""
    mode = path.stat().st_mode  # before opening, which alone may block for ever or rewind a tape
    for is_kind, name in KINDS:
        if is_kind(mode):
            raise RefusalError(f"is a {name}, not an image file")
    return _drained(path) if stat.S_ISFIFO(mode) else path.open("rb")


def _drained(path: Path) -> io.BytesIO:
    """Reads a pipe to its end."""
    if not (hasattr(select, "poll") and hasattr(os, "O_NONBLOCK")):  # Windows
        raise RefusalError("is a pipe, which cannot be read on this system: write its content to a file")
    ends = time.monotonic() + PIPE_SECONDS
    pipe = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # otherwise it blocks here until there is a writer
    try:
        poll = select.poll()
        poll.register(pipe, select.POLLIN)
        content = io.BytesIO()
        while poll.poll(max(0, ends - time.monotonic()) * 1000):
            if not (chunk := os.read(pipe, CHUNK)):
                content.getvalue()  # trims the buffer, so that reading it whole needs no copy
                content.seek(0)
                return content
            content.write(chunk)
            if content.tell() > PIPE_BYTES:
                raise RefusalError(f"is a pipe with more than {PIPE_BYTES:,} bytes: write its content to a file")
    finally:
        os.close(pipe)
    raise RefusalError(f"is a pipe that was not closed within {PIPE_SECONDS:g} s: write its content to a file")
