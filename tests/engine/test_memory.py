"""A captioner keeps no memory of what it did, and takes its threads with it."""

import gc
import os
import subprocess
import sys
import threading
import time
import weakref
from pathlib import Path

import pytest

from engine import Captioner

ROOT = Path(__file__).parents[2]


def test_a_captioner_that_is_dropped_takes_its_threads_with_it(tiny_bundle: Path, images: list[Path]) -> None:
    before = {thread.ident for thread in threading.enumerate()}
    captioner = Captioner(tiny_bundle, provider="cpu")
    captions = captioner.iter_captions(images * 6)
    next(captions)  # dropped at work
    dropped = weakref.ref(captioner)
    del captioner, captions
    left = [thread for thread in threading.enumerate() if thread.ident not in before]
    until = time.monotonic() + 10  # what is at work may finish
    while (dropped() is not None or any(thread.is_alive() for thread in left)) and time.monotonic() < until:
        gc.collect()
        time.sleep(0.01)
    assert dropped() is None
    assert not any(thread.is_alive() for thread in left)


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="memory is read from /proc")
def test_memory_stays_flat_over_batches_of_random_sizes(tiny_bundle: Path) -> None:
    command = [sys.executable, "-m", "tests.engine.random_batches", str(tiny_bundle)]
    kept = {"MALLOC_ARENA_MAX": "1"}  # else threads that collide get a heap each, at no known time
    done = subprocess.run(command, cwd=ROOT, env=os.environ | kept, capture_output=True, text=True, check=True)
    peaks, threads = zip(*(map(int, line.split()) for line in done.stdout.splitlines()), strict=True)
    warm = len(peaks) // 2
    assert peaks[-1] < 1.03 * peaks[warm - 1], done.stdout
    assert threads[-1] <= threads[warm - 1], done.stdout
