"""Runs Java programs that score captions, on lines of text. Knows no metric.

pycocoevalcap's own wrappers write into its package and can hang; here programs have a time limit and closed pipes.
"""

import shutil
import subprocess
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

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
    try:
        asked = subprocess.run([java, "-version"], stdin=subprocess.DEVNULL, capture_output=True, timeout=SECONDS)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise MetricsError(f"{java} does not run: {error}") from error
    if asked.returncode:
        raise MetricsError(f"{java} does not run: {_first_line(asked.stderr, asked.returncode)}")
    return java


def package() -> Path:
    """Returns the folder of pycocoevalcap, which contains the programs. Raises MetricsError without it."""
    try:
        import pycocoevalcap
    except ImportError as error:
        raise MetricsError("scoring needs pycocoevalcap: install the extra 'train'") from error
    return Path(pycocoevalcap.__path__[0])


def run(name: str, command: Sequence[str], lines: Sequence[str], seconds: float) -> list[str]:
    """Runs a program that answers each UTF-8 line with a line, and returns its lines; shows a progress bar.

    Raises MetricsError, beginning with `name`, if the program fails or does not end in time.
    """
    late = threading.Event()
    with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as complaints:
        given.write("".join(f"{line}\n" for line in lines).encode())
        given.seek(0)
        try:
            process = subprocess.Popen(command, stdin=given, stdout=subprocess.PIPE, stderr=complaints)
        except OSError as error:
            raise MetricsError(f"{name} failed: {error}") from error

        def stop() -> None:
            late.set()
            process.kill()

        timer = threading.Timer(seconds, stop)
        with process:
            assert process.stdout is not None
            try:
                timer.start()
                bar = tqdm(process.stdout, name, total=len(lines), unit="caption", leave=False, disable=None)
                printed = [line.removesuffix(b"\n").decode() for line in bar]  # only \n separates lines
            except BaseException:  # Ctrl-C too
                process.kill()
                raise
            finally:
                timer.cancel()
        if late.is_set():
            raise MetricsError(f"{name} did not finish within {seconds:g} seconds")
        if process.returncode:
            complaints.seek(0)
            raise MetricsError(f"{name} failed: {_first_line(complaints.read(), process.returncode)}")
    return printed


def _first_line(complaint: bytes, status: int) -> str:
    """Returns the first line of a program's error output, or its exit status if there is none."""
    said = complaint.decode(errors="replace").strip().splitlines()
    return said[0] if said else f"exit status {status}"
