"""The comparison command, on two files as the evaluation writes them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.training.scored import make_captions
from training.compare_scores import main
from training.metrics.bootstrap import compare
from training.metrics.counts import ImageCounts
from training.metrics.quality import assess
from training.metrics.score_file import counts_record, in_order_of, read_scores
from training.metrics.scores import score_captions


@pytest.fixture(autouse=True)
def no_java(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    def write(name: str, *, seed: int = 0, images: int = 12, change: Callable[[dict[str, Any]], Any] = bool) -> Path:
        references = make_captions(images)[0]
        captions = make_captions(images, seed)[1]
        quality = assess(captions, references, None, score_captions(references, captions), resamples=0)
        record = {"data": "made", "split": "val", **quality.record()}
        change(record)
        path = tmp_path / name
        path.write_text(json.dumps(record))
        return path

    return write


def test_a_file_that_is_read_has_the_tallies_that_were_written(write: Callable[..., Path]) -> None:
    references, captions = make_captions(12)
    counts = score_captions(references, captions).counts
    found = read_scores(write("a.json"))
    assert np.array_equal(found.counts.table(), counts.table())
    assert (found.counts.images, found.captions) == (counts.images, captions)


def test_meteors_counts_come_back_whole(tmp_path: Path) -> None:
    rows = np.arange(46.0).reshape(2, 23)
    counts = ImageCounts(("a", "b"), np.ones((2, 10)), rows, {"CIDEr": np.array([0.1, 1 / 3])})
    columns = counts.per_image()
    record = {
        "data": "",
        "split": "",
        "tokeniser": "",
        "captions": {"a": "x", "b": "y"},
        "per_image": {name: {m: float(v[i]) for m, v in columns.items()} for i, name in enumerate("ab")},
        "counts": counts_record(counts),
    }
    (tmp_path / "s.json").write_text(json.dumps(record))
    found = read_scores(tmp_path / "s.json").counts
    assert found.meteor is not None
    assert np.array_equal(found.table(), counts.table())
    assert in_order_of(("b", "a"), found).meteor.tolist() == rows[::-1].tolist()  # type: ignore[union-attr]


def test_two_runs_are_compared_whatever_the_order_of_their_images(
    write: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def turn(record: dict[str, Any]) -> None:
        record["per_image"] = dict(reversed(record["per_image"].items()))

    before, after = write("a.json"), write("b.json", seed=1, change=turn)
    assert (
        main([str(before), str(after), "--resamples", "500", "--show", "2", "--output", str(tmp_path / "c.json")]) == 0
    )
    printed = capsys.readouterr().out
    first, second = read_scores(before), read_scores(after)
    expected = compare(first.counts, in_order_of(first.counts.images, second.counts), resamples=500)
    written = json.loads((tmp_path / "c.json").read_text())["differences"]
    assert list(written) == list(expected)
    for metric, found in expected.items():
        assert written[metric]["change"] == found.change
        assert written[metric]["interval"] == [found.interval.low, found.interval.high]
        assert f"{found.change:+.4f}" in printed
    changes = {
        name: abs(second.counts.means["CIDEr"][::-1][place] - first.counts.means["CIDEr"][place])
        for place, name in enumerate(first.counts.images)
    }
    farthest = sorted(changes, key=lambda name: -changes[name])[:2]
    assert json.loads((tmp_path / "c.json").read_text())["farthest"] == farthest
    for name in farthest:
        assert first.captions[name] in printed
        assert second.captions[name] in printed


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda record: record.pop("per_image"), "does not contain the scores of each image"),
        (lambda record: record.pop("counts"), "write it again with python -m training.evaluate"),
        (lambda record: record.update(per_image={}), "does not contain the scores of each image"),
        (
            lambda record: record["counts"]["BLEU"].update({"000.jpg": "1 2"}),
            "does not contain the scores of each image",
        ),
        (lambda record: record.update(tokeniser="other"), "score both with Java or both without"),
    ],
)
def test_what_cannot_be_compared_is_one_sentence(
    change: Callable[[dict[str, Any]], Any],
    sentence: str,
    write: Callable[..., Path],
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main([str(write("a.json")), str(write("b.json", change=change))]) == 1
    said = capsys.readouterr().err
    assert sentence in said
    assert said.startswith("error: ")
    assert said.count("\n") == 1


def test_runs_on_other_images_and_files_that_are_none_are_refused(
    write: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(write("a.json")), str(write("b.json", images=10))]) == 1
    assert "but 2 are in only one of them: 010.jpg, 011.jpg" in capsys.readouterr().err
    (tmp_path / "c.json").write_text("{")
    assert main([str(tmp_path / "c.json"), str(tmp_path / "c.json")]) == 1
    assert "is not valid JSON" in capsys.readouterr().err
    with pytest.raises(SystemExit) as stop:
        main([str(tmp_path / "c.json"), "none.json"])
    assert stop.value.code == 2
    told = "error: after must be scores.json of training.evaluate, but there is no file none.json"
    assert capsys.readouterr().err.startswith(told)
    assert main([str(write("a.json")), str(write("b.json")), "--by", "METEOR"]) == 1
    assert "--by METEOR is not in both files" in capsys.readouterr().err
