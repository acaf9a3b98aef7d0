"""Runs Java programs that score captions, on lines of text. Knows no metric.

pycocoevalcap's own wrappers write into its package and can hang; here programs have a time limit and closed pipes.
"""

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

SECONDS = 60  # to print its version, which takes 0.1 s on an idle machine
INSTALL = "install Java 17: apt install openjdk-17-jdk-headless, brew install openjdk@17, or from adoptium.net"


class MetricsError(ValueError):
    """Captions that cannot be scored; the message says why."""


def find_java() -> str:
    """Returns the path of a Java that runs. Raises MetricsError saying why there is none.

    It is run once to find out, because macOS has a `java` that only says where to get one.
    """
    java = shutil.which("java")
    if java is None:
        raise MetricsError("java is not on the PATH")
    run(java, [java, "-version"], (), SECONDS)
    return java


def package() -> Path:
    """Returns the folder of pycocoevalcap, which contains the programs. Raises MetricsError without it."""
    try:
        import pycocoevalcap
    except ImportError as error:
        raise MetricsError("scoring needs pycocoevalcap: install the extra 'train'") from error
    return Path(pycocoevalcap.__path__[0])


def run(name: str, command: Sequence[str], lines: Sequence[str], seconds: float) -> list[str]:
    """Runs a program that answers each UTF-8 line with a line, and returns its lines.

    Raises MetricsError, beginning with `name`, if the program fails or does not end in time.
    """
    given = "".join(f"{line}\n" for line in lines).encode()
    try:
        done = subprocess.run(command, input=given, capture_output=True, timeout=seconds)
    except subprocess.TimeoutExpired as error:
        raise MetricsError(f"{name} did not finish within {seconds:g} seconds") from error
    except OSError as error:
        raise MetricsError(f"{name} failed: {error}") from error
    if done.returncode:
        why = done.stderr.decode(errors="replace").strip().splitlines() or [f"exit status {done.returncode}"]
        raise MetricsError(f"{name} failed: {why[0]}")
    *printed, last = done.stdout.decode().split("\n")  # only \n separates lines
    return [*printed, last] if last else printed
