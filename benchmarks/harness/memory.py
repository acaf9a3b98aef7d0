"""The memory of this process, read from /proc: Linux only."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

STATUS = Path("/proc/self/status")


class Memory(NamedTuple):
    """The process's memory after some work, in MB: what it holds now, and the most it ever held."""

    done: int
    resident: float
    peak: float


def memory(done: int) -> Memory:
    """Reads the process's memory. getrusage does not help: its peak is inherited from the parent process."""
    lines = dict(line.split(":", 1) for line in STATUS.read_text(encoding="ascii").splitlines())
    resident, peak = (int(lines[name].split()[0]) / 1024 for name in ("VmRSS", "VmHWM"))
    return Memory(done, resident, peak)


def growth(samples: Sequence[Memory], warm_up: int) -> float:
    """Returns by what share the peak grew after the first `warm_up` pieces of work."""
    before = max(sample.peak for sample in samples if sample.done <= warm_up)
    return max(sample.peak for sample in samples) / before - 1
