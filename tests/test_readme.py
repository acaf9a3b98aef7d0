"""The README is executed: its Python runs, and its transcripts are what the commands print."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def transcripts() -> list[tuple[str, str]]:
    """Returns (command, expected output) of each `$ ` line in the console blocks that shows an output."""
    found = []
    for block in blocks("console"):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, _, output = part.partition("\n")
            if output.strip():
                found.append((command, output))
    return found


@pytest.mark.parametrize("code", blocks("python"))
def test_the_python_in_the_readme_runs(code: str) -> None:
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for expected in re.findall(r"# > (.*)", code):
        assert expected in done.stdout


@pytest.mark.parametrize(("command", "expected"), transcripts())
def test_the_transcripts_in_the_readme_are_what_the_commands_print(command: str, expected: str) -> None:
    program, *arguments = shlex.split(command)
    assert program == "python"
    environment = {**os.environ, "COLUMNS": "100"}
    done = subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, env=environment, check=False
    )
    assert done.stdout == expected


def test_the_readme_shows_both() -> None:
    assert blocks("python")
    assert any("# > " in code for code in blocks("python"))  # what they print is compared
    assert transcripts()
