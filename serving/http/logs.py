"""Logs as JSON lines, written by a separate thread: a full disk or a stalled reader loses lines, never requests."""

import json
import logging
import queue
import threading
import time
from collections.abc import Callable
from typing import TextIO

MAX_WAITING = 10_000  # lines
PLAIN = logging.makeLogRecord({}).__dict__.keys() | {"message", "asctime", "color_message", "taskName"}

log = logging.getLogger("serving.http")


class JsonFormatter(logging.Formatter):
    """A record as a line of JSON: time, level, event, the fields of `extra`, and the traceback of an error."""

    converter: Callable[[float | None], time.struct_time] = time.gmtime
    default_time_format = "%Y-%m-%dT%H:%M:%S"
    default_msec_format = "%s.%03dZ"

    def format(self, record: logging.LogRecord) -> str:
        """Returns the line."""
        entry = {"time": self.formatTime(record), "level": record.levelname.lower(), "event": record.getMessage()}
        entry |= {name: value for name, value in record.__dict__.items() if name not in PLAIN}
        if record.exc_info:
            entry["trace"] = self.formatException(record.exc_info)
        return json.dumps(entry, default=str)


class JsonLines(logging.Handler):
    """Writes each record as a line of JSON."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self.setFormatter(JsonFormatter())
        self.lost = 0
        self._stream = stream
        self._lines: queue.Queue[str | None] = queue.Queue(MAX_WAITING)
        self._thread = threading.Thread(target=self._write, name="logs", daemon=True)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        """Queues a line; if too many wait, it is lost and counted."""
        try:
            self._lines.put_nowait(f"{self.format(record)}\n")
        except Exception:  # the queue is full, or a field cannot be written: no reason to fail a request
            self.lost += 1

    def close(self) -> None:
        """Writes the lines that wait, for at most a second."""
        try:
            self._lines.put(None, timeout=1)
            self._thread.join(1)
        except queue.Full:
            pass
        super().close()

    def _write(self) -> None:
        while (line := self._lines.get()) is not None:
            try:
                self._stream.write(line)
                self._stream.flush()
            except (OSError, ValueError):
                self.lost += 1


def start(stream: TextIO) -> JsonLines:
    """Sends the logs of the whole process to a stream as JSON lines."""
    handler = JsonLines(stream)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)
    return handler


def lost_lines() -> int:
    """Returns how many lines the logs of the process have lost."""
    return sum(handler.lost for handler in logging.getLogger().handlers if isinstance(handler, JsonLines))
