"""The page that is made of saved runs, by files made by hand."""

import json
from pathlib import Path

import pytest

from benchmarks.harness.saved import Outcome, Row, Run, setting
from benchmarks.report.__main__ import main

BATCHES = (1, 8, 32)
SIDES = ("engine fp32", "eager", "careful", "onnxruntime")


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    """One saved run of each kind."""
    rows = [
        Row("model", work, batch, "engine fp32", baseline, 10.0 * batch, 10.0 * batch * ratio, (ratio,) * 3, 5)
        for work in ("encoder", "greedy")
        for batch in BATCHES
        for baseline, ratio in (("eager", 4.0), ("careful", 3.0), ("onnxruntime", 0.9))
    ]
    outcome = Outcome("one photograph", "engine fp32", "eager", 4, 3.5, False)
    run = Run(setting("model"), tuple(rows), (outcome,))
    benchmarks = [
        {
            "extra_info": {
                "work": "encoder", "batch": batch, "side": competitor, "images_per_second": 123.4,
                "p50_ms": batch * 5.0, "p90_ms": batch * 6.0, "p99_ms": batch * 7.0,
            }
        }
        for batch in BATCHES
        for competitor in SIDES
    ]  # fmt: skip
    speeds = {
        "machine_info": {},
        "commit_info": {"id": "abcdef012345"},
        "datetime": "2030-01-02T",
        "benchmarks": benchmarks,
    }
    point = {"curve": "threads", "line": "search", "precision": "fp32"}
    points = [{**point, "x": x, "rate": 100.0 * x} for x in (1, 2, 4)]
    found = {name: tmp_path / f"{name}.json" for name in ("run", "speeds", "scale")}
    run.save(found["run"])
    found["speeds"].write_text(json.dumps(speeds))
    found["scale"].write_text(json.dumps({"cores": 2, "bundle": "model", "points": points}))
    found["history"] = tmp_path / "history.jsonl"
    run.append_to(found["history"])
    run.append_to(found["history"])
    return found


def test_every_kind_of_run_has_its_section_and_its_picture(files: dict[str, Path], tmp_path: Path) -> None:
    output = tmp_path / "docs"
    runs = [str(files[name]) for name in ("run", "speeds", "scale")]
    assert main([*runs, "--output", str(output), "--history", str(files["history"])]) == 0
    page = (output / "benchmarks.md").read_text()
    for picture in ("ratio-fp32", "latency", "threads", "history"):
        assert f"](benchmarks-{picture}.png)" in page
        assert (output / f"benchmarks-{picture}.png").stat().st_size > 5_000
    assert "| one photograph | fp32 | at least 4x | 3.50x | **fell short** |" in page
    assert "| encoder | 8 | 3.00 | 4.00 | **0.90** |" in page
    assert "| encoder | 8 | careful | 40 | 48 | 56 | 123.4 |" in page


def test_what_was_not_measured_has_no_section(files: dict[str, Path], tmp_path: Path) -> None:
    output = tmp_path / "docs"
    assert main([str(files["scale"]), "--output", str(output), "--history", str(tmp_path / "none")]) == 0
    assert sorted(path.name for path in output.iterdir()) == ["benchmarks-threads.png", "benchmarks.md"]
    assert (output / "benchmarks.md").read_text().count("\n## ") == 1


def test_of_two_runs_the_later_counts(files: dict[str, Path], tmp_path: Path) -> None:
    later = Run.load(files["run"]).rows[0]
    Run(
        setting("model"), (Row(later.model, later.work, later.batch, later.engine, later.baseline, 1, 7, (7, 7, 7), 5),)
    ).save(tmp_path / "later.json")
    runs = [str(files["run"]), str(tmp_path / "later.json")]
    assert main([*runs, "--output", str(tmp_path), "--history", str(tmp_path / "none")]) == 0
    assert "| encoder | 1 | 3.00 | 7.00 | **0.90** |" in (tmp_path / "benchmarks.md").read_text()


def test_a_file_of_no_known_kind_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "other.json").write_text("{}")
    assert main([str(tmp_path / "other.json"), "--output", str(tmp_path)]) == 2
    assert "other.json is not a run" in capsys.readouterr().err
    assert not (tmp_path / "benchmarks.md").exists()
