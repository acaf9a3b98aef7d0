"""Java programs that score captions: finding Java, running a program on lines of text. Knows no metric.

pycocoevalcap's own wrappers write into its package and can hang; here programs have a time limit and closed pipes.
"""

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

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


def run(name: str, command: Sequence[str | Path], lines: Sequence[str], seconds: float) -> list[str]:
    """Runs a program on lines of text, UTF-8, and returns its lines. Raises MetricsError, which begins with `name`."""
    try:
        finished = subprocess.run(
            command,
            input="".join(f"{line}\n" for line in lines).encode(),
            capture_output=True,
            timeout=seconds,
            check=True,
        )
    except subprocess.TimeoutExpired as error:
        raise MetricsError(f"{name} did not finish within {seconds:g} seconds") from error
    except (OSError, subprocess.CalledProcessError) as error:
        said = (getattr(error, "stderr", None) or b"").decode(errors="replace").strip().splitlines()
        raise MetricsError(f"{name} failed: {said[0] if said else error}") from error
    return finished.stdout.decode().removesuffix("\n").split("\n")  # other alphabets' line ends end no line here
