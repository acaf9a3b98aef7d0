"""Threads: each waits for its own caption, and the scheduler runs their requests together.

python examples/thread_pool.py IMAGE…
"""

import sys
from concurrent.futures import ThreadPoolExecutor

from engine import Captioner, Scheduler

if len(sys.argv) < 2:
    sys.exit(__doc__)


def describe(path: str) -> str:
    """Returns a photograph's caption; any thread of a service may call this. Raises EngineError."""
    return scheduler.submit(path, timeout=10).result().text


paths = sys.argv[1:]
with Scheduler(Captioner()) as scheduler, ThreadPoolExecutor(8) as pool:
    for path, text in zip(paths, pool.map(describe, paths), strict=True):
        print(path, text, sep="\t")
