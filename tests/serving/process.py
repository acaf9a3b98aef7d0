"""A real service in a process of its own, on a port of its own choice."""

import json
import os
import queue
import signal
import subprocess
import sys
import threading
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import httpx

ROOT = Path(__file__).parents[2]


class Service:
    """`python -m serving.http` while it is entered; left, it is killed. stderr: where its log goes instead."""

    def __init__(self, *options: str, port: int = 0, stderr: int | IO[bytes] = subprocess.PIPE) -> None:
        command = [sys.executable, "-m", "serving.http", "--port", str(port), "--provider", "cpu", "--batch-size", "4"]
        self.process = subprocess.Popen([*command, *options], cwd=ROOT, stderr=stderr)
        self.lines: queue.Queue[dict[str, Any] | str | None] = queue.Queue()
        self.port = port
        self._reader = threading.Thread(target=self._read, daemon=True)

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> "Service":
        if self.process.stderr:
            self._reader.start()
            self.port = self.wait_for("listening")["port"]
            self.wait_for("Application startup complete.")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.kill()
        self.process.wait()
        if self.process.stderr:
            self._reader.join(10)
            self.process.stderr.close()

    def wait_for(self, event: str) -> dict[str, Any]:
        """Returns the next line of the log that tells of an event."""
        while (line := self.lines.get(timeout=60)) is not None:
            if isinstance(line, dict) and line["event"] == event:
                return line
        raise AssertionError(f"the service ended without {event!r}")

    def metric(self, name: str) -> float:
        """Returns a counter or gauge that has no labels."""
        text = httpx.get(f"{self.url}/metrics", timeout=30).text
        return float(next(line for line in text.splitlines() if line.startswith(f"{name} ")).split(" ")[1])

    def terminate(self) -> int:
        """Asks it to end, and returns its exit code."""
        os.kill(self.process.pid, signal.SIGTERM)
        return self.process.wait(60)

    def _read(self) -> None:
        assert self.process.stderr
        for line in self.process.stderr:
            text = line.decode()
            self.lines.put(json.loads(text) if text.startswith("{") else text)
        self.lines.put(None)
