"""The measurement of the HTTP service runs: both servers start, are called, and answer without a failure."""

import json
from importlib.util import find_spec
from pathlib import Path

import pytest

from benchmarks import http_load


@pytest.mark.skipif(find_spec("locust") is None, reason="needs locust")  # which changes the process that imports it
def test_the_measurement_runs_and_nothing_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "points.json"
    assert http_load.main(["--callers", "2", "--seconds", "2", "--turns", "1", "--json", str(file)]) == 0
    points = json.loads(file.read_text(encoding="utf-8"))
    assert [point["server"] for point in points] == list(http_load.SERVERS)
    assert all(point["rate"] > 0 < point["p50"] <= point["p99"] and point["failures"] == 0 for point in points)
    assert "| 2 | serving.http | " in capsys.readouterr().out
