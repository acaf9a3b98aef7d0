"""Laws of the driver: stages are run once each, in order, and gone on with whatever stopped them."""

import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.drawn import write_drawn_data
from training.data.subset import write_subset
from training.recipes import command, driver
from training.recipes.command import start
from training.recipes.driver import Recipe, main

ROOT = Path(__file__).parents[2]
STEP = """
import os, pathlib, sys, time
option, output, how, *more = sys.argv[1:]
output = pathlib.Path(output)
with (output.parent / "calls").open("a") as calls:
    calls.write(" ".join([output.name, *more]) + "\\n")
if how == "refuse":
    sys.exit("wrong flags")
output.mkdir(exist_ok=True)
(output / "half").touch()
mended = (output.parent / "mended").exists()
if how == "fail" and not mended:
    sys.exit("no such luck")
if how == "wait" and not mended:
    try:
        print("waiting", flush=True)
        time.sleep(60)
    except KeyboardInterrupt:
        print("interrupted once", flush=True)
        sys.exit(130)
if how == "bar":
    print("terminal" if sys.stdout.isatty() else "none", os.environ["MALLOC_TRIM_THRESHOLD_"], "Grüße")
    print("made", output, "in", os.getcwd(), "by", sys.prefix + "/bin/python")
"""
COOK = """
import sys
from training.recipes.driver import Recipe, main
stages = {name: [f"step --output OUTPUT/{name} {how} [--again]"] for name, how in (("one", "wait"), ("two", "do"))}
sys.exit(main(Recipe(name="tried", bundle="none", stages=stages), sys.argv[1:]))
"""


@pytest.fixture(autouse=True)
def step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module, `step`, that does or fails to do something, and notes each call."""
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "step.py").write_text(STEP)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path / "code"), str(ROOT)]))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("drawn") / "data"
    write_drawn_data(folder, train=3, validation=2)
    return folder


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "out"


def recipe(*how: tuple[str, str]) -> Recipe:
    return Recipe(
        name="tried", bundle="none", stages={name: [f"step --output OUTPUT/{name} {do} [--again]"] for name, do in how}
    )


def cook(data: Path, output: Path, *how: tuple[str, str], more: Sequence[str] = ()) -> int:
    return main(recipe(*how), ["--data", str(data), "--output", str(output), *more])


def cook_apart(data: Path, output: Path) -> "subprocess.Popen[str]":
    """Starts a recipe whose first stage waits, as a process group of its own; returns when it does."""
    process = subprocess.Popen(
        [sys.executable, "-c", COOK, "--data", str(data), "--output", str(output)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        # a shell lets its background jobs ignore Ctrl-C, and Python inherits that
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert process.stdout is not None
    for line in process.stdout:
        if "waiting" in line:
            return process
    pytest.fail("the stage did not begin")


def calls(output: Path) -> list[str]:
    return (output / "calls").read_text().splitlines()


def stages(output: Path) -> dict[str, dict[str, object]]:
    found: dict[str, dict[str, object]] = json.loads((output / "recipe.json").read_text())["stages"]
    return found


def test_each_stage_is_run_once(data: Path, output: Path, capsys: pytest.CaptureFixture[str]) -> None:
    three = ("one", "do"), ("two", "do"), ("three", "do")
    assert cook(data, output, *three) == cook(data, output, *three) == 0
    assert calls(output) == ["one", "two", "three"]
    assert capsys.readouterr().out.count("finished before") == 3
    assert [(name, each["begun"], each["finished"]) for name, each in stages(output).items()] == [
        (name, 1, True) for name in ("one", "two", "three")
    ]


def test_a_stage_that_fails_stops_the_recipe_with_one_sentence_and_can_be_gone_on_with(
    data: Path, output: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    three = ("one", "do"), ("two", "fail"), ("three", "do")
    assert cook(data, output, *three) == 1
    assert re.fullmatch(
        r"error: step ended with status 1 in the stage two; .* run the same command again, which continues here\n",
        capsys.readouterr().err,
    )
    assert "two: no such luck\n" in (output / "log.txt").read_text()
    (output / "mended").touch()
    assert cook(data, output, *three) == 0
    assert calls(output) == ["one", "two", "two --again", "three"]
    assert stages(output)["two"]["begun"] == 2


def test_ctrl_c_reaches_the_stage_once_and_says_how_to_go_on(data: Path, output: Path) -> None:
    process = cook_apart(data, output)
    os.killpg(process.pid, signal.SIGINT)
    said, _ = process.communicate(timeout=300)
    assert process.returncode == 130
    again = f"continue with python -m training.recipes.tried --data {data} --output {output}"
    assert said.splitlines()[-1] == f"interrupted: {again}"
    log = (output / "log.txt").read_text()
    assert log.count("one: interrupted once") == 1
    assert re.search(r"stage 1 of 2, one: stopped after \d+ s", log)
    assert not stages(output)["one"]["finished"]
    assert cook(data, output, ("one", "do"), ("two", "do")) == 1  # not as it was begun
    (output / "mended").touch()
    assert cook(data, output, ("one", "wait"), ("two", "do")) == 0
    assert calls(output) == ["one", "one --again", "two"]


def test_an_interrupt_of_the_driver_alone_ends_the_stage_too(
    data: Path, output: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "GRACE", 0.1)

    def interrupt(line: str) -> None:
        if line == "waiting":
            os.kill(os.getpid(), signal.SIGINT)

    began = time.monotonic()
    inherited = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with (tmp_path / "lock").open("a+") as lock, pytest.raises(KeyboardInterrupt):
            start(["step", "--output", str(tmp_path / "one"), "wait"], interrupt, lock)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, inherited)
    assert time.monotonic() - began < 50


def test_the_stage_of_a_driver_that_was_killed_is_named_and_not_disturbed(
    data: Path, output: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(driver, "PATIENCE", 0.0)
    process = cook_apart(data, output)
    try:
        process.kill()
        process.communicate()
        left = int((output / ".lock").read_text().split("stages process ")[1].split()[0])
    finally:
        assert cook(data, output, ("one", "wait"), ("two", "do")) == 1
    said = capsys.readouterr().err
    assert f"process {left} (step), is using {output}: wait until it ends, or stop it" in said
    os.kill(left, signal.SIGKILL)
    (output / "mended").touch()
    monkeypatch.setattr(driver, "PATIENCE", 60.0)
    assert cook(data, output, ("one", "wait"), ("two", "do")) == 0
    assert calls(output) == ["one", "one --again", "two"]


def test_log_and_record_tell_time_and_stage_and_no_places(
    data: Path, output: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(output.parent)
    assert cook(data, output, ("one", "bar"), more=["--threads", "3"]) == 0
    lines = (output / "log.txt").read_text(encoding="utf-8").splitlines()
    assert all(re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d  ", line) for line in lines)
    assert [line[21:] for line in lines[:-1]] == [
        "stage 1 of 1, one: started",
        "one: python -m step --output OUTPUT/one bar",
        "one: none 1000000000 Grüße",
        "one: made OUTPUT/one in . by PYTHON/bin/python",
    ]
    assert f"made {output / 'one'}" in capsys.readouterr().out, "but shown as it is"
    record = json.loads((output / "recipe.json").read_text())
    assert str(output.parent) not in json.dumps(record)
    assert record["options"] == {"one": ["step --output OUTPUT/one bar [--again]"]}
    assert (record["data"]["train"]["images"], record["data"]["val"]["captions"]) == (3, 4)
    (made_on,) = record["stages"]["one"]["made_on"]
    assert {"python", "torch", "onnxruntime"} < made_on["versions"].keys()
    assert (made_on["device"], made_on["threads"]) == ("cpu", 3)
    assert record["stages"]["one"]["seconds"] > 0


def test_a_stage_has_the_terminal_that_there_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = pty.openpty()
    with (
        os.fdopen(writing, "w") as terminal,
        (tmp_path / "lock").open("a+") as lock,
        monkeypatch.context() as patched,
    ):
        saved = os.dup(1)
        try:
            os.dup2(writing, 1)
            patched.setattr(sys, "stdout", terminal)
            assert start(["step", "--output", str(tmp_path / "one"), "bar"], pytest.fail, lock) == 0
        finally:
            os.dup2(saved, 1)
            os.close(saved)
        assert os.read(reading, 1 << 16).decode().startswith("terminal 1000000000 Grüße")
    os.close(reading)


def test_a_stage_notes_every_machine_and_threads_that_it_was_made_on(data: Path, output: Path) -> None:
    for threads in ("1", "2", "2"):
        if threads == "2":
            (output / "mended").touch()
        cook(data, output, ("one", "do"), ("two", "fail"), more=["--threads", threads])
    made_on = {name: [each["threads"] for each in noted["made_on"]] for name, noted in stages(output).items()}  # type: ignore[attr-defined]
    assert made_on == {"one": [1], "two": [1, 2]}


# What it is made of


def test_other_options_data_or_weights_never_mix_with_those_there(
    data: Path, output: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cook(data, output, ("one", "do")) == 0
    assert cook(data, output, ("one", "do --seed 4")) == 1
    assert (
        "was started with other options or data (options.one output OUTPUT/one do [--again], and now options.one "
        "output OUTPUT/one do; options.one seed 4 [--again]): choose another folder, or delete one in this one to "
        "start again"
    ) in capsys.readouterr().err
    write_subset(data, tmp_path / "fewer", {"train": 1, "val": 1})
    assert cook(tmp_path / "fewer", output, ("one", "do")) == 1
    assert "(data.train.images 3; data.train.captions 6;" in capsys.readouterr().err
    (tmp_path / "encoder.pth").write_bytes(b"weights")
    assert cook(data, output, ("one", "do"), more=["--encoder-weights", str(tmp_path / "encoder.pth")]) == 1
    assert "(encoder_weights pretrained, and now encoder_weights.name encoder.pth; " in capsys.readouterr().err
    shutil.rmtree(output / "one")
    assert cook(tmp_path / "fewer", output, ("one", "do --seed 4")) == 0
    assert calls(output) == ["one", "one --seed 4"]


def test_what_cannot_begin_is_refused_before_a_folder_is_begun(
    data: Path, output: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        cook(data, output, ("one", "do"), more=["--threads", "-1"])
    assert stop.value.code == 2
    assert "--threads must be at least 0" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        cook(data, output, ("one", "do"), more=["--encoder-weights", "/nope.pth"])
    assert "--encoder-weights must be one of pretrained, random or a file, but there is no" in capsys.readouterr().err
    assert cook(data / "nowhere", output, ("one", "do")) == 1
    assert "nowhere cannot be opened" in capsys.readouterr().err
    assert not output.exists()


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("precious", "", "is not the folder of a recipe"),
        ("recipe.json", "{", "recipe.json is unreadable"),
        ("", "", "File exists"),
    ],
)
def test_a_folder_of_others_is_never_touched(
    data: Path, output: Path, name: str, content: str, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if name:
        output.mkdir()
    (output / name if name else output).write_text(content)
    assert cook(data, output, ("one", "do")) == 1
    assert sentence in capsys.readouterr().err
    assert (output / name if name else output).read_text() == content
    assert not (output / "calls").exists()


def test_options_of_a_later_stage_may_change_and_those_of_a_finished_one_may_not(data: Path, output: Path) -> None:
    assert cook(data, output, ("one", "do"), ("two", "refuse")) == 1
    assert cook(data, output, ("one", "do"), ("two", "do --seed 4")) == 0
    assert calls(output)[-1] == "two --seed 4"
    assert cook(data, output, ("one", "do"), ("two", "do --seed 5")) == 1
    assert cook(data, output, ("one", "do --seed 5"), ("two", "do --seed 4")) == 1
