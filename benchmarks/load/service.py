"""The service under test in a separate process: its address, memory, counters and log. Sends no images."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from contextlib import suppress
from pathlib import Path
from types import TracebackType

ROOT = Path(__file__).parents[2]


class Service:
    """`python -m serving.http` while it is entered, its log in a file."""

    def __init__(self, log: Path) -> None:
        self._log = log
        self.url = ""

    def __enter__(self) -> "Service":
        # the callers share its cores, and would call less than they mean to where it does not yield to them
        command = ["nice", "-n", "5", sys.executable, "-m", "serving.http", "--provider", "cpu", "--port", "0"]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(command, cwd=ROOT, stderr=log)
        while not self._ready():
            if self._process.poll() is not None:
                raise RuntimeError(f"the service did not start: {self._log.read_text()}")
            time.sleep(0.1)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()

    def _ready(self) -> bool:
        if not self.url:
            for line in self._log.read_text().splitlines():
                told = json.loads(line) if line.startswith("{") else {}
                if told.get("event") == "listening":
                    self.url = f"http://127.0.0.1:{told['port']}"
        with suppress(OSError):
            return bool(self.url) and urllib.request.urlopen(f"{self.url}/readyz", timeout=5).status == 200
        return False

    def metrics(self) -> dict[str, float]:
        """Returns the counters and gauges that have no labels."""
        with urllib.request.urlopen(f"{self.url}/metrics", timeout=30) as answer:
            lines = answer.read().decode().splitlines()
        pairs = (line.split(" ") for line in lines if not line.startswith("#") and "{" not in line)
        return {name: float(value) for name, value in pairs}

    def size(self) -> tuple[float, float, float]:
        """Returns bytes of resident memory, open files and threads (Linux)."""
        folder = Path("/proc") / str(self._process.pid)
        status = dict(line.split(":\t", 1) for line in (folder / "status").read_text().splitlines() if ":\t" in line)
        files = len(os.listdir(folder / "fd"))  # noqa: PTH208 - names, no paths
        return 1024.0 * int(status["VmRSS"].split()[0]), float(files), float(status["Threads"])

    def stop(self) -> int:
        """Asks it to end, and returns its exit code."""
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(120)

    def lines_by_request(self) -> Counter[str]:
        """Returns how many lines of the log tell of the end of each request."""
        lines = (json.loads(line) for line in self._log.read_text().splitlines())
        return Counter(line["request_id"] for line in lines if line["event"] == "request")
