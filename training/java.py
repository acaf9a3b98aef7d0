"""Java programs that score captions: finding Java, running a program on lines of text. Knows no metric.

pycocoevalcap's own wrappers write into its package and can hang; here programs have a time limit and closed pipes.
"""

import shutil
import subprocess
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

INSTALL = "install Java 17: apt install openjdk-17-jdk-headless, brew install openjdk@17, or from adoptium.net"


class MetricsError(ValueError):
    """Captions that cannot be scored; the message says why."""


def find_java() -> str | None:
    """Returns the path of Java, None where there is none."""
    return shutil.which("java")


def package() -> Path:
    """Returns the folder of pycocoevalcap, which carries the programs. Raises MetricsError without it."""
    try:
        import pycocoevalcap
    except ImportError as error:
        raise MetricsError("scoring needs pycocoevalcap: install the extra 'train'") from error
    return Path(pycocoevalcap.__path__[0])


def run(name: str, command: Sequence[str], lines: Sequence[str], seconds: float) -> list[str]:
    """Runs a program that answers each line of text, UTF-8, with a line, and returns its lines; a bar shows how far.

    Raises MetricsError, which begins with `name`, when the program fails or does not end in time.
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
                printed = [line.removesuffix(b"\n").decode() for line in bar]  # no other line end ends a line
            except BaseException:  # Ctrl-C too
                process.kill()
                raise
            finally:
                timer.cancel()
        if late.is_set():
            raise MetricsError(f"{name} did not finish within {seconds:g} seconds")
        if process.returncode:
            complaints.seek(0)
            said = complaints.read().decode(errors="replace").strip().splitlines()
            raise MetricsError(f"{name} failed: {said[0] if said else f'exit status {process.returncode}'}")
    return printed
