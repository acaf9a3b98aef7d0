import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.retrieval import main, ranks_of, recalls


def test_a_rank_is_the_place_in_the_sorted_order() -> None:
    generator = np.random.default_rng(0)
    for _ in range(20):
        scores = generator.integers(0, 8, 12).astype(float)
        order = sorted(range(12), key=lambda i: (-scores[i], i))
        assert [ranks_of(scores, place) for place in range(12)] == [order.index(place) + 1 for place in range(12)]


def test_recalls_are_shares_of_queries_and_intervals_contain_them() -> None:
    ranks = [1, 1, 3, 6, 20, 1, 2, 8, 11, 5]
    found = recalls(ranks, [0, 0, 1, 1, 2, 2, 3, 3, 4, 4])
    assert (found["R@1"], found["R@5"], found["R@10"], found["median rank"]) == (30, 60, 80, 4)
    for name, (low, high) in found["intervals"].items():
        assert low <= found[name] <= high
        assert low < high


def test_the_whole_table_is_measured(
    drawn_data: Path, tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--data", str(drawn_data), "--bundle", str(tiny_bundle), "--provider", "cpu", "--photographs", "12"]
    assert main([*arguments, "--slow-queries", "6", "--json", str(tmp_path / "found.json")]) == 0
    assert "words alone" in capsys.readouterr().out
    stages = json.loads((tmp_path / "found.json").read_text(encoding="utf-8"))["stages"]
    assert set(stages) == {"words alone", "likelihood of all photographs", "search: these and words"}
    # five drawings with a colour and a shape each: better than chance by far
    assert stages["search: these and words"]["R@5"] > 60


def test_other_data_is_refused_in_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--data", str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith("error: ")
