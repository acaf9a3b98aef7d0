"""Runs one command of a stage in a process, with the terminal or a pipe. Knows no stages and no recipes."""

import os
import re
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

ALONE = "torch.distributed.run", "--standalone"  # torchrun, at a free port
GRACE = 60.0  # seconds that a command has to end after Ctrl-C
ENVIRONMENT = {
    # by default glibc returns large buffers to the system and faults them in again: half the time of an eager network
    "MALLOC_MMAP_THRESHOLD_": "1000000000",
    "MALLOC_TRIM_THRESHOLD_": "1000000000",
    "PYTHONUNBUFFERED": "1",  # print immediately
}


def words_of(line: str, values: Mapping[str, str]) -> list[str]:
    """Returns the words of a stage's line, with values filled in and the part in brackets if it applies."""
    words = [re.sub("|".join(values), lambda found: values[found[0]], word) for word in shlex.split(line)]
    output = Path(words[words.index("--output") + 1])
    output.parent.mkdir(parents=True, exist_ok=True)
    if words[-1].startswith("["):
        again = words.pop().strip("[]")
        there = output.is_dir() and any(output.iterdir())  # empty if it was killed before it wrote anything
        words += [again] if there else []
    return words


def together(words: Sequence[str], processes: int) -> list[str]:
    """Returns the words that run a command of this project in several processes, by torchrun."""
    return [*ALONE, f"--nproc-per-node={processes}", "-m", *words] if processes > 1 else [*words]


def start(words: Sequence[str], say: Callable[[str], None], lock: IO[str]) -> int:
    """Runs `python -m words` to its end and returns its exit status.

    It gets this process's terminal or, without one, a pipe whose lines are passed to `say`, and it holds the lock while
    it runs. Ctrl-C reaches both; this process waits for it to end and then raises KeyboardInterrupt.
    """
    out: dict[str, Any] = {}
    if not sys.stdout.isatty():
        out = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "encoding": "utf-8", "errors": "replace"}
    command, environment = [sys.executable, "-m", *words], os.environ | ENVIRONMENT
    told: list[bool] = []
    enough = threading.Timer(GRACE, lambda: child.kill())

    def interrupt(*_: object) -> None:
        told.append(True)  # raising here would lose lines
        enough.start() if len(told) == 1 else child.kill()

    before = signal.getsignal(signal.SIGINT)
    if before != signal.SIG_IGN:
        signal.signal(signal.SIGINT, interrupt)
    try:
        with subprocess.Popen(command, env=environment, pass_fds=[lock.fileno()], **out) as child:
            try:
                lock.truncate(0)
                lock.write(f"process {os.getpid()}, or of its stages process {child.pid} ({words[0]}),")
                lock.flush()
                for line in child.stdout or ():
                    say(line.rstrip())
                status = child.wait()
            finally:
                child.kill()  # does nothing if it has ended
    finally:
        enough.cancel()
        signal.signal(signal.SIGINT, before)
    if told:
        raise KeyboardInterrupt
    return status
