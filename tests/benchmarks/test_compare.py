"""What compare says of saved runs, made by hand, and what ratio says of rows."""

from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.compare import main
from benchmarks.harness.competitors import BASELINES
from benchmarks.harness.interleave import interleave, ratios
from benchmarks.harness.saved import Row, Run, setting
from benchmarks.ratio import overview, slower_cells

ROWS = tuple(
    Row("model", work, batch, "engine fp32", "eager", 10.0, 40.0, (3.8, 4.0, 4.2), 5)
    for work in ("encoder", "greedy")
    for batch in (1, 8)
)
RUN = Run(setting("model"), ROWS)


def with_ratio(row: Row, share: float) -> Row:
    low, middle, high = (share * ratio for ratio in row.ratios)
    return replace(row, ratios=(low, middle, high))


def compared(tmp_path: Path, new: Run) -> int:
    files = tmp_path / "reference.json", tmp_path / "new.json"
    for run, file in zip((RUN, new), files, strict=True):
        run.save(file)
    return main([str(file) for file in files])


def test_a_run_is_read_as_it_was_saved(tmp_path: Path) -> None:
    RUN.save(tmp_path / "run.json")
    assert Run.load(tmp_path / "run.json") == RUN


def test_a_ratio_that_is_worse_by_a_fifth_fails_and_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    new = replace(RUN, rows=(*ROWS[:3], with_ratio(ROWS[3], 0.8)))
    assert compared(tmp_path, new) == 1
    said = capsys.readouterr().out
    assert "WORSE by 20%: model: greedy, batch 8, engine fp32 against eager" in said
    assert said.count("WORSE") == 1


def test_a_ratio_that_is_worse_by_a_tenth_passes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert compared(tmp_path, replace(RUN, rows=tuple(with_ratio(row, 0.9) for row in ROWS))) == 0
    assert "4 ratios compared, 0 worse" in capsys.readouterr().out


def test_times_alone_fail_nothing(tmp_path: Path) -> None:
    slower = tuple(replace(row, engine_ms=3 * row.engine_ms, baseline_ms=3 * row.baseline_ms) for row in ROWS)
    assert compared(tmp_path, replace(RUN, rows=slower)) == 0


def test_a_row_that_was_not_measured_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert compared(tmp_path, replace(RUN, rows=ROWS[1:])) == 0
    assert "not measured this time: model: encoder, batch 1, engine fp32 against eager" in capsys.readouterr().out


def test_runs_with_no_row_in_common_fail(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert compared(tmp_path, replace(RUN, rows=(replace(ROWS[0], model="another"),))) == 1
    assert "no row in common" in capsys.readouterr().out


def test_another_machine_is_noted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert compared(tmp_path, replace(RUN, setting=replace(RUN.setting, processor="another"))) == 0
    said = capsys.readouterr().out
    assert "the runs differ in processor" in said
    assert "the runs differ in cores" not in said


def test_a_file_that_is_no_run_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "other.json").write_text("[1]")
    assert main([str(tmp_path / "other.json")] * 2) == 2
    assert "other.json is not a run" in capsys.readouterr().err


def test_the_overview_has_a_column_for_each_baseline_and_slower_ones_in_bold() -> None:
    rows = (ROWS[0], replace(ROWS[0], baseline="careful", ratios=(0.8, 0.9, 1.0)), ROWS[1])
    assert overview(rows).splitlines()[1:] == [
        "| engine fp32 | batch | careful | eager |",
        "|---|---|---|---|",
        "| encoder | 1 | **0.90** | 4.00 |",
        "| encoder | 8 |  | 4.00 |",
    ]


def test_the_engine_is_held_against_the_fastest_baseline_as_exact_as_itself() -> None:
    def row(engine: str, baseline: str, milliseconds: float) -> Row:
        ratio = milliseconds / 10
        return Row("model", "encoder", 8, engine, baseline, 10, milliseconds, (ratio - 0.1, ratio, ratio + 0.1), 5)

    kinds = BASELINES | {
        name: replace(BASELINES["eager"], exact=name == "engine fp32") for name in ("engine fp32", "engine auto")
    }
    inexact = row("engine fp32", "openvino default latency", 5)
    assert slower_cells([row("engine fp32", "eager", 40), inexact], kinds) == []
    assert slower_cells([inexact, row("engine auto", "openvino default latency", 5)], kinds) == [
        row("engine auto", "openvino default latency", 5)
    ]
    best = row("engine fp32", "careful", 8)
    assert slower_cells([row("engine fp32", "eager", 9), best, row("engine fp32", "compile", 12)], kinds) == [best]
    assert slower_cells([row("engine fp32", "careful", 9.5)], kinds) == []  # one round in four says otherwise


def test_turns_are_taken_in_rounds_and_a_ratio_is_one_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.harness.interleave.LEAST_SECONDS", 0.001)
    order: list[str] = []
    times = interleave({name: lambda name=name: order.append(name) for name in "ab"}, 0, fewest=3)  # type: ignore[misc]
    assert {name: len(found) for name, found in times.items()} == {"a": 3, "b": 3}
    starts = [name for before, name in zip(["", *order], order, strict=False) if name != before]
    assert starts == ["a", "b"] * 4  # once for how long a call takes, then three rounds
    assert ratios([1, 2, 4], [2, 4, 8]) == (2, 2, 2)
