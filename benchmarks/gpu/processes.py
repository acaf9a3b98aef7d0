"""Runs each competitor in a separate process, within the remaining time. Knows nothing of tables."""

import json
import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from benchmarks.gpu.checks import Task

WORKER = "--worker"

Facts = dict[str, Any]
Run = Callable[[str, Task, float], Iterator[Facts]]
"""Runs a competitor for at most so many seconds and yields facts; the last is {"fault": ...} where it ended badly."""


def in_own_process(device: str, paths: Mapping[str, str]) -> Run:
    """Returns the Run that starts the command again for each competitor.

    paths: folders with packages, by a part of the names of the competitors that they are for.
    """

    def run(name: str, task: Task, seconds: float) -> Iterator[Facts]:
        environment = dict(os.environ)
        own = next((folder for part, folder in paths.items() if part in name), None)
        if own:
            environment["PYTHONPATH"] = os.pathsep.join(filter(None, (own, environment.get("PYTHONPATH"))))
        command = [sys.executable, "-m", "benchmarks.gpu", WORKER, name, "--device", device]
        pipes: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
        process = subprocess.Popen(command, env=environment, **pipes)
        try:
            out, err = process.communicate(pickle.dumps(task), timeout=seconds)
            ended = None if process.returncode == 0 else f"failed: {_last_line(err) or f'exit {process.returncode}'}"
        except subprocess.TimeoutExpired:
            process.kill()
            out, err = process.communicate()
            ended = "stopped: the time is over"
        for text in out.decode(errors="replace").splitlines():
            if text.startswith("{"):  # libraries print too
                yield json.loads(text)
        if ended:
            yield {"fault": ended}

    return run


def _last_line(text: bytes) -> str:
    lines = text.decode(errors="replace").split("\n")
    return next((line.strip()[:300] for line in reversed(lines) if line.strip()), "")
