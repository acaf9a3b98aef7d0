"""Laws of every command outside the engine: what is missing or wrong is one sentence that says what to do."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from engine.commands.parser import explain_missing
from engine.errors import EngineError

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize(
    ("command", "package", "extras"),
    [
        ("training.train", "torch", "cpu,train"),
        ("export.to_onnx", "torch", "cpu,train"),
        ("benchmarks.soak", "matplotlib", "cpu,train,dev"),
    ],
)
def test_a_missing_package_is_one_sentence_that_says_what_to_install(
    command: str, package: str, extras: str, tmp_path: Path
) -> None:
    (tmp_path / "sitecustomize.py").write_text(f"import sys\nsys.modules[{package!r}] = None\n")  # refuses its import
    done = subprocess.run(
        [sys.executable, "-m", command, "--help"],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (1, "")
    how = f"run python -m pip install '.[{extras}]' in a checkout"
    assert done.stderr == f"error: the package {package} is not installed: {how}\n"


def test_only_what_was_foreseen_is_a_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    explain_missing("x")
    sys.excepthook(EngineError, EngineError("no bundle"), None)
    assert capsys.readouterr().err == "error: no bundle\n"
    for bug in (ValueError("a bug"), ModuleNotFoundError("a part of ours", name="training.nothing")):
        sys.excepthook(type(bug), bug, None)
        assert type(bug).__name__ in capsys.readouterr().err


def test_the_services_say_alike_what_is_wrong(capsys: pytest.CaptureFixture[str]) -> None:
    from serving.parser import Parser

    parser = Parser(prog="python -m serving.x", allow_abbrev=False)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--seconds", type=float)
    parser.add_argument("--way", choices=("a", "b"))
    for words, sentence in (
        ("--threads x", "--threads must be a whole number, but it is 'x'"),
        ("--seconds x", "--seconds must be a number, but it is 'x'"),
        ("--way c", "--way must be one of 'a', 'b', but it is 'c'"),
        ("--thread 1", "there is no flag --thread (did you mean --threads?)"),
        ("--zzz", "there is no flag --zzz"),
        ("--way", "--way needs a value"),
        ("word", "'word' was not expected"),
    ):
        with pytest.raises(SystemExit) as stop:
            parser.parse_args(words.split())
        assert stop.value.code == 2
        assert capsys.readouterr().err == f"error: {sentence}; see `python -m serving.x --help`\n"
