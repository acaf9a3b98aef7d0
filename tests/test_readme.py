"""README and the pages below are executed: their Python runs, and what they show is what the commands print.

`python -m tests.test_readme` writes what is printed into the pages, for instance after the bundle has changed.
"""

import atexit
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
EXECUTED = ("README.md", "docs/command-line.md", "docs/python.md", "docs/search.md", "docs/scheduling.md")
DOCS = tuple(f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md")))
PAGES = ("README.md", "CONTRIBUTING.md", *DOCS)
BYTES = 7_000  # that a README may have


def read(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", read(page), re.MULTILINE | re.DOTALL)


def transcripts(page: str) -> list[tuple[str, str]]:
    """Returns (command, expected output) of each `$ ` line in the console blocks that shows an output."""
    parts = [part for block in blocks(page, "console") for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]]
    found = [(command, output) for command, _, output in (part.partition("\n") for part in parts)]
    return [(command, output) for command, output in found if output.strip()]


@cache
def checkout(page: str, language: str) -> Path:
    """Returns a folder with all that a checkout has, in which a page's commands may leave files."""
    folder = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder)
    for each in ROOT.iterdir():
        if not each.name.startswith((".", "photos.db")):
            (folder / each.name).symlink_to(each)
    return folder


def run(*command: str, folder: Path, errors: int) -> subprocess.CompletedProcess[str]:
    """errors: where standard error goes, as for subprocess."""
    environment = {**os.environ, "COLUMNS": "100"}
    return subprocess.run(
        [sys.executable, *command], cwd=folder, stdout=subprocess.PIPE, stderr=errors, text=True, env=environment
    )


def printed(command: str, page: str) -> str:
    """Returns what a terminal shows: standard output and standard error."""
    program, *arguments = shlex.split(command)
    assert program == "python"
    return run(*arguments, folder=checkout(page, "console"), errors=subprocess.STDOUT).stdout


def ran(code: str, page: str) -> str:
    done = run("-W", "error", "-c", code, folder=checkout(page, "python"), errors=subprocess.PIPE)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(("page", "code"), [(page, code) for page in EXECUTED for code in blocks(page, "python")])
def test_the_python_on_a_page_runs(page: str, code: str) -> None:
    output = ran(code, page)
    for expected in re.findall(r"# > (.*)", code):
        assert expected in output


@pytest.mark.parametrize(
    ("page", "command", "expected"), [(page, *both) for page in EXECUTED for both in transcripts(page)]
)
def test_the_transcripts_on_a_page_are_what_the_commands_print(page: str, command: str, expected: str) -> None:
    assert printed(command, page) == expected


def test_the_readme_shows_both() -> None:
    assert any("# > " in code for code in blocks("README.md", "python"))  # what they print is compared
    assert transcripts("README.md")


def test_the_readme_is_short() -> None:
    assert len(read("README.md").encode()) <= BYTES


def test_the_readme_links_every_page() -> None:
    assert set(DOCS) <= set(re.findall(r"\]\((docs/[\w-]+\.md)\)", read("README.md").partition("## Documentation")[2]))


@pytest.mark.parametrize("page", DOCS)
def test_a_page_is_one_question(page: str) -> None:
    title, _, answer = read(page).partition("\n\n")
    assert title.startswith("# ")
    assert title.endswith("?")
    assert answer[0].isalpha() or answer[0] == "`"  # a sentence, and no heading, table or code


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    for link in re.findall(r"\]\((?!https?://)([^)]+)\)", re.sub(r"^```.*?^```", "", read(page), flags=re.M | re.S)):
        name, _, anchor = link.partition("#")
        target = (ROOT / page).parent / name if name else ROOT / page
        assert target.exists(), link
        if anchor:
            headings = re.findall(r"^#+ (.*)", target.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in [re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings], link


def write() -> None:
    """Writes what commands and programs print into the pages."""
    for page in EXECUTED:
        text = read(page)
        for command, output in transcripts(page):
            text = text.replace(f"$ {command}\n{output}", f"$ {command}\n{printed(command, page)}")
        for code in blocks(page, "python"):
            if "# > " in code:
                kept = "".join(line for line in code.splitlines(keepends=True) if not line.startswith("# > "))
                said = "".join(f"# > {line}\n" for line in ran(kept, page).splitlines())
                text = text.replace(code, kept + said)
        (ROOT / page).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    write()
