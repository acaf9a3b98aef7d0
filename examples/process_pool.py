"""Processes: each opens its own captioner when it starts, with its share of the cores.

python examples/process_pool.py IMAGE…
"""

import multiprocessing
import sys
from concurrent.futures import ProcessPoolExecutor

from engine import Captioner, RuntimeOptions

if len(sys.argv) < 2:
    sys.exit(__doc__)

WORKERS = 2
captioner: Captioner  # each process has its own


def start() -> None:
    """Runs once in each worker, because a captioner cannot be passed from one process to another."""
    global captioner
    captioner = Captioner(runtime=RuntimeOptions(threads=1))


def describe(path: str) -> str:
    """Returns a photograph's caption. Raises EngineError, which reaches the caller in the other process."""
    return captioner.caption([path])[0].text


if __name__ == "__main__":  # a worker imports this file
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(WORKERS, spawn, initializer=start) as pool:
        for path, text in zip(sys.argv[1:], pool.map(describe, sys.argv[1:]), strict=True):
            print(path, text, sep="\t")
