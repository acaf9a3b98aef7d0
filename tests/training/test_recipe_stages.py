"""Laws of stages: run once each, in order, gone on with whatever stopped them; their processes die with the recipe."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from training.recipes import process, stages
from training.recipes.process import run_module
from training.recipes.stages import Command, RecipeError, RecipeFolder, Stage

ROOT = Path(__file__).parents[2]
STEP = """
import os, pathlib, sys, time
how, folder, *more = sys.argv[1:]
folder = pathlib.Path(folder)
with (folder.parent / "calls").open("a") as calls:
    calls.write(" ".join([folder.name, *more]) + "\\n")
if how == "refuse":
    sys.exit("wrong flags")
if how == "fail" and not (folder.parent / "mended").exists():
    folder.mkdir(exist_ok=True)
    (folder / "half").touch()
    sys.exit("no such luck")
if how == "wait":
    folder.mkdir(exist_ok=True)
    (folder / "pid").write_text(str(os.getpid()))
    print("waiting", flush=True)
    try:
        time.sleep(60)
    except KeyboardInterrupt:
        print("interrupts:", 1)
        sys.exit(130)
if how == "bar":
    print("a bar", "1%", "2%\\n", sep="\\r", end="")
    print("terminal" if sys.stderr.isatty() else "none", os.environ["MALLOC_TRIM_THRESHOLD_"], "Grüße", flush=True)
print("made", folder)
folder.mkdir(exist_ok=True)
(folder / "whole").touch()
"""


@pytest.fixture(autouse=True)
def step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module, `step`, that does or fails to do something, and notes each call."""
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "step.py").write_text(STEP)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path / "code"), str(ROOT)]))


def stage(output: Path, name: str, how: str = "do") -> Stage:
    return Stage(name, (Command("step", (how, str(output / name)), output / name, "--again"),))


def cook(output: Path, *how: tuple[str, str], made_of: object = 1, threads: int = 1) -> RecipeFolder:
    place = RecipeFolder(output, {output: "OUTPUT"})
    with place.opened({"made_of": made_of}, {"machine": {"threads": threads}}):
        place.run([stage(output, name, do) for name, do in how], lambda _: None)
    return place


def calls(output: Path) -> list[str]:
    return (output / "calls").read_text().splitlines()


def test_each_stage_is_run_once(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "out"
    cook(output, ("one", "do"), ("two", "do"))
    cook(output, ("one", "do"), ("two", "do"), ("three", "do"))
    assert calls(output) == ["one", "two", "three"]
    assert capfd.readouterr().out.count("finished before") == 2
    noted = json.loads((output / "recipe.json").read_text())["stages"]
    assert [(name, each["begun"], each["finished"]) for name, each in noted.items()] == [
        (name, 1, True) for name in ("one", "two", "three")
    ]


def test_a_stage_that_fails_stops_the_recipe_with_one_sentence_and_can_be_gone_on_with(tmp_path: Path) -> None:
    output = tmp_path / "out"
    recipe = ("one", "do"), ("two", "fail"), ("three", "do")
    with pytest.raises(
        RecipeError, match=r"step ended with status 1 in the stage two; .* start the same command again"
    ):
        cook(output, *recipe)
    assert "two: no such luck\n" in (output / "log.txt").read_text()
    (output / "mended").touch()
    cook(output, *recipe)
    assert calls(output) == ["one", "two", "two --again", "three"]


def test_a_stage_killed_before_it_wrote_anything_begins_anew(tmp_path: Path) -> None:
    (tmp_path / "out" / "one").mkdir(parents=True)
    assert stage(tmp_path / "out", "one").commands[0].line() == ("do", str(tmp_path / "out" / "one"))


def test_ctrl_c_reaches_the_child_once_and_the_recipe_goes_on_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "out"
    # a shell lets its background jobs ignore Ctrl-C, and Python inherits that
    inherited = signal.signal(signal.SIGINT, signal.default_int_handler)

    def interrupt() -> None:
        while not (output / "log.txt").is_file() or "waiting" not in (output / "log.txt").read_text():
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            cook(output, ("one", "wait"))
    finally:
        signal.signal(signal.SIGINT, inherited)
        thread.join()
    log = (output / "log.txt").read_text()
    assert log.count("interrupts: 1") == 1
    assert re.search(r"one: stage 1 of 1, one: stopped after \d+ s", log)
    assert not json.loads((output / "recipe.json").read_text())["stages"]["one"]["finished"]
    cook(output, ("one", "do"))
    assert calls(output) == ["one", "one --again"]


def test_a_child_ends_when_the_recipe_is_killed(tmp_path: Path) -> None:
    code = "import sys; from training.recipes.process import run_module; run_module('step', sys.argv[1:], print)"
    parent = subprocess.Popen(
        [sys.executable, "-c", code, "wait", str(tmp_path / "one")], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    with parent.stdout:
        assert parent.stdout.readline() == "waiting\n"
        parent.kill()
        parent.wait()
    child = int((tmp_path / "one" / "pid").read_text())
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            os.kill(child, 0)
        except ProcessLookupError:
            return
        if Path(f"/proc/{child}/stat").is_file() and Path(f"/proc/{child}/stat").read_text().split()[2] == "Z":
            return  # ended; nobody has asked how
        time.sleep(0.05)
    pytest.fail("the child lives on")


def test_the_log_tells_time_and_stage_but_no_paths_and_no_bars(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    cook(output, ("one", "bar"))
    lines = (output / "log.txt").read_text(encoding="utf-8").splitlines()
    assert all(re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d  one: ", line) for line in lines)
    assert [line[21:] for line in lines[:-1]] == [
        "one: stage 1 of 1, one: begins",
        "one: $ python -m step bar OUTPUT/one",
        "one: 2%",
        "one: none 1000000000 Grüße",
        "one: made OUTPUT/one",
    ]
    assert "a bar\r1%\r2%\n" in capsys.readouterr().out  # but shown as it came
    assert str(tmp_path) not in (output / "recipe.json").read_text()


def test_on_a_terminal_a_child_has_a_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    with monkeypatch.context() as patched:
        patched.setattr(process, "on_terminal", lambda: True)
        assert run_module("step", ["bar", str(tmp_path / "one")], seen.append) == 0
    assert seen == ["2%", "terminal 1000000000 Grüße", f"made {tmp_path / 'one'}"]


def test_a_folder_is_worked_in_by_one_recipe_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stages, "PATIENCE", 0.0)
    first, second = (RecipeFolder(tmp_path / "out", {}) for _ in range(2))
    with first.opened({}, {}), pytest.raises(RecipeError, match="another process works in"), second.opened({}, {}):
        pass
    with second.opened({}, {}):
        pass


def test_other_ingredients_never_mix_with_those_there(tmp_path: Path) -> None:
    output = tmp_path / "out"
    cook(output, ("one", "do"), made_of={"sugar": (1, 2), "salt": 3})
    cook(output, ("one", "do"), made_of={"sugar": (1, 2), "salt": 3})
    refused = r"other ingredients \(made_of\.salt was 3 and is 4\): name another folder, or delete one in this one"
    with pytest.raises(RecipeError, match=refused):
        cook(output, ("one", "do"), made_of={"sugar": (1, 2), "salt": 4})
    shutil.rmtree(output / "one")
    cook(output, ("one", "do"), made_of={"sugar": (1, 2), "salt": 4})
    assert calls(output) == ["one", "one"]


def test_ingredients_may_change_until_a_stage_has_made_something(tmp_path: Path) -> None:
    output = tmp_path / "out"
    first = ("one", "refuse")  # before it wrote anything
    with pytest.raises(RecipeError, match="status 1"):
        cook(output, first, made_of={"salt": 3})
    cook(output, ("one", "do"), made_of={"salt": 4})
    record = json.loads((output / "recipe.json").read_text())
    assert record["made_of"] == {"salt": 4}
    assert record["stages"]["one"]["begun"] == 1


def test_each_stage_notes_what_it_was_made_on_and_later_starts_change_nothing_of_it(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    cook(output, ("one", "do"), threads=1)
    with pytest.raises(RecipeError):
        cook(output, ("one", "do"), ("two", "fail"), threads=2)
    assert "other means" not in capfd.readouterr().out
    (output / "mended").touch()
    cook(output, ("one", "do"), ("two", "fail"), threads=3)
    said = capfd.readouterr().out
    assert "goes on with other means (machine.threads was 2 and is 3): its last digits may differ\n" in said
    cook(output, ("one", "do"), ("two", "fail"), threads=4)
    stages = json.loads((output / "recipe.json").read_text())["stages"]
    made_on = {name: [each["machine"]["threads"] for each in noted["made_on"]] for name, noted in stages.items()}
    assert made_on == {"one": [1], "two": [2, 3]}


def test_a_record_from_before_stages_noted_machines_is_gone_on_with(tmp_path: Path) -> None:
    output = tmp_path / "out"
    cook(output, ("one", "do"))
    record = json.loads((output / "recipe.json").read_text())
    del record["stages"]["one"]["made_on"]
    (output / "recipe.json").write_text(json.dumps(record | {"machine": {"threads": 7}}))
    cook(output, ("one", "do"), ("two", "do"), threads=8)
    record = json.loads((output / "recipe.json").read_text())
    assert record["machine"] == {"threads": 7}
    assert "made_on" not in record["stages"]["one"]
    assert record["stages"]["two"]["made_on"] == [{"machine": {"threads": 8}}]


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("precious", "", "holds something else than a recipe"),
        ("recipe.json", "{", "recipe.json is unreadable"),
        ("", "", "is a file, and a recipe needs a folder"),
    ],
)
def test_a_folder_of_others_is_never_touched(tmp_path: Path, name: str, content: str, sentence: str) -> None:
    output = tmp_path / "out"
    if name:
        output.mkdir()
    (output / name if name else output).write_text(content)
    with pytest.raises(RecipeError, match=sentence):
        cook(output, ("one", "do"))
    assert (output / name if name else output).read_text() == content
    assert not (tmp_path / "out" / "calls").exists()
