"""One command of a stage: its words, and its process with the terminal or a pipe. Knows no stages and no recipes."""

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

GRACE = 60.0  # seconds in which a command must end after Ctrl-C
ENVIRONMENT = {
    # glibc gives every large buffer back to the system and has it again page by page: half the time of an eager network
    "MALLOC_MMAP_THRESHOLD_": "1000000000",
    "MALLOC_TRIM_THRESHOLD_": "1000000000",
    "PYTHONUNBUFFERED": "1",  # what is printed comes when it is printed
}


def words_of(line: str, values: Mapping[str, str]) -> list[str]:
    """Returns the words of a stage's line, with the values in their places and what is in brackets if it applies."""
    words = [re.sub("|".join(values), lambda found: values[found[0]], word) for word in shlex.split(line)]
    output = Path(words[words.index("--output") + 1])
    output.parent.mkdir(parents=True, exist_ok=True)
    if words[-1].startswith("["):
        again = words.pop().strip("[]")
        there = output.is_dir() and any(output.iterdir())  # empty where it was killed before it wrote anything
        words += [again] if there else []
    return words


def start(words: Sequence[str], say: Callable[[str], None], lock: IO[str]) -> int:
    """Runs `python -m words` to its end and returns its exit status.

    It has this process's terminal, or, where that is none, a pipe whose lines go to `say`; and the lock as long as it
    lives. Ctrl-C reaches it as it does this process, which waits for its end and then raises KeyboardInterrupt.
    """
    out: dict[str, Any] = {}
    if not sys.stdout.isatty():
        out = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "encoding": "utf-8", "errors": "replace"}
    command, environment = [sys.executable, "-m", *words], os.environ | ENVIRONMENT
    told: list[bool] = []
    enough = threading.Timer(GRACE, lambda: child.kill())

    def interrupt(*_: object) -> None:
        told.append(True)  # and no line is lost, as it would be if this raised
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
                child.kill()  # which does nothing where it has ended
    finally:
        enough.cancel()
        signal.signal(signal.SIGINT, before)
    if told:
        raise KeyboardInterrupt
    return status
