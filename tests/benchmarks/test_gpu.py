"""The GPU benchmark's own logic: gate, budget, isolation and table, with fakes; and once for real on a CPU."""

import itertools
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.gpu import __main__ as gpu
from benchmarks.gpu.__main__ import main, measure, table
from benchmarks.gpu.checks import SAME, TOLERANCE, Task, check
from benchmarks.gpu.competitors import Kind, kinds
from benchmarks.gpu.processes import Run, in_own_process
from benchmarks.gpu.timing import WORKLOADS, check_and_time
from engine.options import Decoding

TASK = Task(
    Path("bundle"),
    np.zeros((4, 2, 2, 3), np.uint8),
    (1, 2),
    0.0,
    np.array([[1, 2, 3], [2, 1, 0], [0, 1, 1], [4, 0, 0]], np.float32),
    (("a dog", -1.0), ("a cat", -2.0), ("a bird", -3.0), ("a boat", -4.0)),
)


class Fake:
    """A competitor that computes the reference, except where a test says otherwise."""

    def __init__(self, error: float = 0.0, wrong: int = 0, by: float = 1.0) -> None:
        self.error, self.wrong, self.by = error, wrong, by
        self.encoded: list[int] = []

    def encode(self, pixels: np.ndarray) -> Any:
        self.encoded.append(len(pixels))
        return TASK.features[:1] if len(pixels) == 1 else TASK.features + np.float32(self.error)

    def caption(self, pixels: np.ndarray, decoding: Decoding) -> Any:
        texts = [("else", s - self.by) if i < self.wrong else (t, s) for i, (t, s) in enumerate(TASK.captions)]
        return [type("Caption", (), {"text": text, "score": score}) for text, score in texts]


def kind(competitor: Any, precision: str = "fp32") -> Kind:
    return Kind(precision, lambda bundle, most: competitor)


# --- the gate


@pytest.mark.parametrize("precision", TOLERANCE)
def test_a_side_that_is_off_by_more_than_its_precision_allows_gets_no_figures(precision: str) -> None:
    limit = TOLERANCE[precision] * TASK.features.max()
    assert check(Fake(limit * 0.1), precision, TASK)["fault"] is None
    facts = list(check_and_time(kind(Fake(limit * 1.1), precision), TASK))
    assert "features are off by" in facts[0]["check"]["fault"]
    assert len(facts) == 1


def test_the_bound_of_fp32_is_tighter_than_tf32() -> None:
    rounded = Fake()
    features = (TASK.features.view(np.uint32) & 0xFFFFE000).view(np.float32) * np.float32(1 - 2**-11)
    rounded.encode = lambda pixels: features  # type: ignore[method-assign]
    assert check(rounded, "fp32", TASK)["fault"]


@pytest.mark.parametrize(("precision", "most"), [("fp32", 0), ("fp16", 1), ("int8", 2)])
def test_captions_may_differ_as_far_as_the_precision_allows(precision: str, most: int) -> None:
    assert (1 - most / 4) >= SAME[precision]
    assert check(Fake(wrong=most), precision, TASK)["fault"] is None
    assert "of the captions are the same" in check(Fake(wrong=most + 1), precision, TASK)["fault"]


def test_words_that_tie_are_no_error_in_fp32() -> None:
    assert check(Fake(wrong=4, by=1e-6), "fp32", TASK)["fault"] is None


def test_features_that_are_no_numbers_are_wrong() -> None:
    assert check(Fake(np.nan), "int8", TASK)["fault"]


def test_a_right_side_is_timed_at_every_batch_and_work() -> None:
    competitor = Fake()
    facts = list(check_and_time(kind(competitor), TASK))
    assert facts[0]["check"]["fault"] is None
    assert [(fact["batch"], fact["work"]) for fact in facts[1:]] == list(itertools.product((1, 2), WORKLOADS))
    assert all(fact["ms"] > 0 for fact in facts[1:])


# --- budget and isolation


class Clock:
    """A clock that stands still but for what runs."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_sides_beyond_the_budget_are_lines_and_the_last_gets_what_is_left() -> None:
    clock, given = Clock(), []

    def run(name: str, task: Task, seconds: float) -> Iterator[dict[str, Any]]:
        given.append((name, seconds))
        clock.now += 50
        yield {"batch": 1, "work": "greedy", "ms": 2.0}

    competitors = dict.fromkeys("abcd", kind(Fake()))
    lines = list(measure(competitors, TASK, run, 2, clock))
    assert given == [("a", 120), ("b", 70), ("c", 20)]
    assert [line.fault for line in lines] == [None, None, None, "skipped: the 2 minutes are over"]


def test_a_side_that_fails_keeps_its_figures_and_is_one_line() -> None:
    def run(name: str, task: Task, seconds: float) -> Iterator[dict[str, Any]]:
        if name == "good":
            yield {"check": {"fault": None}, "seconds_to_start": 1.0}
            yield {"batch": 1, "work": "encoder", "ms": 4.0}
        if name == "wrong":
            yield {"check": {"fault": "cosine 0.1"}, "seconds_to_start": 1.0}
        if name != "good":
            yield {"fault": "failed: out of memory"}

    lines = list(measure({name: kind(Fake()) for name in ("bad", "good", "wrong")}, TASK, run, 9, Clock()))
    assert [line.fault for line in lines] == ["failed: out of memory", None, "wrong: cosine 0.1"]
    rows = table(lines, (1, 2), 2e9, {"fp32": 1e12, "fp16": 2e12})
    assert rows[2:] == [
        "| bad | | failed: out of memory | | | | |",
        "| good | 1 | 250 |  |  |  | 50.0% |",
        "| wrong | | wrong: cosine 0.1 | | | | |",
    ]
    assert {row.count("|") for row in rows} == {8}


def processes() -> Run:
    return in_own_process("cpu", {})


def test_a_process_that_dies_is_a_fault_with_its_last_words(tiny_bundle: Path) -> None:
    (facts,) = processes()("no such side", replace(TASK, bundle=tiny_bundle), 60)
    assert facts == {"fault": "failed: KeyError: 'no such side'"}


def test_a_process_that_takes_too_long_is_ended() -> None:
    assert list(processes()("engine cpu", TASK, 0.05)) == [{"fault": "stopped: the time is over"}]


# --- the command


def test_without_a_gpu_the_command_says_so_and_ends(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(gpu, "gpu_name", lambda number: None)
    assert main([]) == 2
    assert capsys.readouterr().err.startswith("no NVIDIA GPU was found")


def test_on_a_cpu_the_whole_way_runs(tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    real = processes()

    def run(name: str, task: Task, seconds: float) -> Iterator[dict[str, Any]]:
        return (
            real(name, task, seconds) if "engine" in name else check_and_time(kinds("cpu")[name], task)
        )  # torch is loaded here

    competitors = ["--side", "engine cpu", "torch eager"]
    given = ["--device", "cpu", "--quick", "--bundle", str(tiny_bundle), "--output", str(tmp_path)]
    assert main([*given, *competitors], run) == 0
    out = capsys.readouterr().out
    (path,) = tmp_path.glob("gpu-*.json")
    record = json.loads(path.read_text())
    assert [line["side"] for line in record["lines"]] == ["engine cpu", "torch eager fp32"]
    for line in record["lines"]:
        assert line["fault"] is None
        assert line["check"]["same_captions"] == 1
        found = [(figure["batch"], figure["work"]) for figure in line["figures"]]
        assert found == list(itertools.product((1, 2), WORKLOADS))
        assert sum(row.startswith(f"| {line['side']} |") for row in out.splitlines()) == 2
    assert record["matrix_rate"]["fp32"] > 0
    assert record["encoder_operations"] > 0


def test_a_wrong_side_is_exit_code_1(tiny_bundle: Path, tmp_path: Path) -> None:
    def run(name: str, task: Task, seconds: float) -> Iterator[dict[str, Any]]:
        yield {"check": {"fault": "cosine 0.1"}, "seconds_to_start": 1.0}

    given = ["--device", "cpu", "--quick", "--bundle", str(tiny_bundle), "--output", str(tmp_path)]
    assert main([*given, "--side", "engine"], run) == 1
