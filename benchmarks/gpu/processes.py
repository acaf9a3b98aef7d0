"""Runs each competitor in a separate process, within the remaining time. Knows nothing of tables."""

import argparse
import base64
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.gpu.checks import Task

WORKER = "--worker"

Facts = dict[str, Any]
Run = Callable[[str, Task, float], Iterator[Facts]]
"""Runs a competitor for at most so many seconds and yields facts; the last is {"fault": ...} where it ended badly."""


def in_own_process(options: argparse.Namespace) -> Run:
    """Returns the Run that starts the command again for each competitor."""
    paths = dict(given.split("=", 1) for given in options.path)

    def run(name: str, task: Task, seconds: float) -> Iterator[Facts]:
        environment = dict(os.environ)
        own = next((folder for part, folder in paths.items() if part in name), None)
        if own:
            environment["PYTHONPATH"] = os.pathsep.join(filter(None, (own, environment.get("PYTHONPATH"))))
        process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.gpu", WORKER, name, "--device", options.device],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
        try:
            out, err = process.communicate(packed(task), timeout=seconds)
            ended = None if process.returncode == 0 else f"failed: {_last_line(err) or f'exit {process.returncode}'}"
        except subprocess.TimeoutExpired:
            process.kill()
            out, err = process.communicate()
            ended = "stopped: the time is over"
        for text in out.splitlines():
            if text.startswith("{"):  # libraries print too
                yield json.loads(text)
        if ended:
            yield {"fault": ended}

    return run


def packed(task: Task) -> str:
    return json.dumps(
        {
            "bundle": str(task.bundle),
            "shape": task.pixels.shape,
            "pixels": base64.b64encode(task.pixels.tobytes()).decode(),
            "batches": task.batches,
            "seconds": task.seconds,
            "features": task.features.tolist(),
            "captions": task.captions,
        }
    )


def unpacked(text: str) -> Task:
    facts = json.loads(text)
    pixels = np.frombuffer(base64.b64decode(facts["pixels"]), np.uint8).reshape(facts["shape"])
    captions = tuple((text, score) for text, score in facts["captions"])
    features = np.array(facts["features"], np.float32)
    return Task(Path(facts["bundle"]), pixels, tuple(facts["batches"]), facts["seconds"], features, captions)


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:300] if lines else ""
