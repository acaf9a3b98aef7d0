"""docs/http.md is executed: its commands run, and what it shows has the shape and the words of what they print.

`python -m tests.serving.test_http_docs` writes what they print into the page: for a new bundle.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from engine import Captioner, PhotoIndex, Scheduler
from serving.http.__main__ import command_line
from serving.http.limits import Limits
from serving.http.problems import TITLES
from tests.serving.process import ROOT, Service

PAGE = (ROOT / "docs" / "http.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


def transcripts() -> list[tuple[str, str]]:
    """Returns (command, shown output)."""
    parts = [part for block in blocks("console") for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]]
    return [(part.partition("\n")[0], part.partition("\n")[2]) for part in parts]


def said(output: str) -> list[str]:
    """Returns what is the same whenever it is asked: sentences, words, details, and the model's defaults."""
    return re.findall(r'"(?:caption|word|detail)": ?"[^"]*"|"defaults":{[^}]*}', output)


ASKING = [(command, shown) for command, shown in transcripts() if command.startswith("curl")]


@contextmanager
def started(folder: Path) -> Iterator[Service]:
    """Starts the service as the page does in the end, on a port that is free and with an index in a folder."""
    with PhotoIndex(folder / "photos.db", Captioner(provider="cpu")) as index:
        index.add([ROOT / "samples"])
    with Service("--index", index.path) as service:
        service.wait_for("ready")
        yield service


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """That service."""
    with started(tmp_path_factory.mktemp("docs")) as service:
        yield service


def test_these_commands_start_what_the_others_ask() -> None:
    plain = "python -m serving.http --port 8000"
    commands = [command for command, _ in transcripts() if not command.startswith("curl")]
    assert commands == [plain, "python -m engine index samples --index photos.db", f"{plain} --index photos.db"]


def printed(service: Service, command: str) -> str:
    command = command.replace("http://127.0.0.1:8000", service.url)
    return subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True, check=True).stdout


def shape(value: Any) -> Any:
    """Returns what must be the same in any two answers: names and types, but for values that may be null."""
    if isinstance(value, dict):
        return {name: None if name == "confidence" else shape(each) for name, each in value.items()}
    if isinstance(value, list):
        return [shape(each) for each in value if not isinstance(each, str)]
    return float if isinstance(value, int | float) and not isinstance(value, bool) else type(value)


def shapes(output: str) -> Any:
    """Returns the shape of JSON, of events (a run of equal ones counts once), or of lines that end in numbers."""
    if output.startswith("event: "):
        lines = [line for line in output.splitlines() if line]
        names, data = lines[::2], [shape(json.loads(line.removeprefix("data: "))) for line in lines[1::2]]
        events = list(zip(names, data, strict=True))
        return [event for i, event in enumerate(events) if i == 0 or event != events[i - 1]]
    return shape(json.loads(output)) if output.startswith("{") else re.sub(r"[0-9.]+$", "N", output, flags=re.MULTILINE)


@pytest.mark.skipif(not shutil.which("curl"), reason="the page's commands need curl")
@pytest.mark.parametrize(("command", "shown"), ASKING)
def test_commands_print_what_the_page_shows(service: Service, command: str, shown: str) -> None:
    output = printed(service, command)
    assert shapes(output) == shapes(shown)
    assert said(output) == said(shown)


@pytest.mark.parametrize("code", blocks("python"))
def test_the_python_on_the_page_runs(code: str) -> None:
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, env=os.environ)
    assert done.returncode == 0, done.stderr
    for expected in re.findall(r"# > (.*)", code):
        assert expected in done.stdout


def test_the_limits_on_the_page_are_those_of_the_command_line() -> None:
    shown = dict(re.findall(r"^\| `--([a-z-]+)` \| ([0-9.]+) \|", PAGE, re.MULTILINE))
    options = vars(command_line().parse_args([]))
    assert Scheduler.__init__.__kwdefaults__
    defaults = Scheduler.__init__.__kwdefaults__ | {name: value for name, value in options.items() if value is not None}
    assert len(shown) == 8
    assert shown == {name: str(defaults[name.replace("-", "_")]) for name in shown}


def test_the_time_to_end_on_the_page_is_that_of_the_service() -> None:
    (shown,) = re.findall(r"`--timeout` \+ `--upload-timeout` \+ 5 s, (\d+) s by default", PAGE)
    assert int(shown) == Limits().timeout + Limits().upload_timeout + 5


def test_the_problems_on_the_page_are_all_problems() -> None:
    rows = re.findall(r"^\| (\d{3}) \| ((?:`[a-z-]+`(?:, )?)+) \|", PAGE, re.MULTILINE)
    assert {(kind, int(status)) for status, kinds in rows for kind in re.findall("[a-z-]+", kinds)} == {
        (kind, status) for kind, (status, _) in TITLES.items()
    }


def test_the_files_that_commands_name_are_there() -> None:
    for command, _ in ASKING:
        assert all((ROOT / Path(name)).is_file() for name in re.findall(r"@(\S+)", command))


def write() -> None:
    """Writes what the commands print into the page."""
    text = PAGE
    with TemporaryDirectory() as folder, started(Path(folder)) as service:
        for command, shown in ASKING:
            text = text.replace(f"$ {command}\n{shown}", f"$ {command}\n{printed(service, command).strip()}\n")
    (ROOT / "docs" / "http.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    write()
