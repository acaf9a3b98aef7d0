"""Laws of the comparison of encoders: true sizes, a table that Markdown reads, scores beside."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest

from training import compare_encoders
from training.compare_encoders import Cost, main, table
from training.models.compiled import trace
from training.models.encoders import load_encoder


def test_the_table_holds_what_was_measured_and_the_scores_that_there_are() -> None:
    costs = [Cost("a", (224, 200), 1280, 13_600_000, {1: 12.34, 2: 7.0}), Cost("b", (260, 260), 5, 10**6, {1: 1, 2: 2})]
    assert table(costs, {"a": {"CIDEr": 0.61}}).splitlines() == [
        "| encoder | pixels | features | MB | ms/image, 1 thread | ms/image, 2 threads | CIDEr |",
        "| --- | --- | --- | --- | --- | --- | --- |",
        "| a | 224 x 200 | 1280 | 13.6 | 12.3 | 7.0 | 0.610 |",
        "| b | 260 x 260 | 5 | 1.0 | 1.0 | 2.0 |  |",
    ]


def test_the_command_measures_encoders_and_keeps_the_figures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "scores.json").write_text(json.dumps({"scores": {"CIDEr": 0.5, "BLEU-4": 20.0, "METEOR": 1.0}}))
    options = ["--weights", "random", "--threads", "1", "--batch-size", "2", "--repeats", "2"]
    scores = ["--scores", f"test_resnet={tmp_path / 'scores.json'}", "--output", str(tmp_path / "costs.json")]
    assert main(["test_resnet", *options, *scores]) == 0
    assert "| test_resnet | 160 x 160 | 96 |" in capsys.readouterr().out
    (kept,) = json.loads((tmp_path / "costs.json").read_text())
    assert kept["scores"] == {"CIDEr": 0.5, "BLEU-4": 20.0}
    assert kept["milliseconds"]["1"] > 0
    encoder = load_encoder("test_resnet", "random")
    weights = sum(parameter.numel() for parameter in encoder.parameters())
    assert 4 * weights < kept["graph_bytes"] < 4.5 * weights
    model = onnx.load_from_string(trace(encoder, np.zeros((2, 160, 160, 3), np.uint8)))
    assert model.ByteSize() == pytest.approx(kept["graph_bytes"], rel=0.01)


def test_what_cannot_be_measured_is_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["nonesuch"]) == 1
    assert main(["test_resnet", "--scores", f"test_resnet={tmp_path / 'none.json'}"]) == 1
    said = capsys.readouterr().err
    assert "unknown encoder 'nonesuch'" in said
    assert "--scores needs ENCODER=FILE" in said

    def missing(*_: object) -> None:
        raise ModuleNotFoundError("gone", name="onnxruntime")

    monkeypatch.setattr(compare_encoders, "measure", missing)
    assert main(["test_resnet"]) == 1
    assert "needs the package onnxruntime" in capsys.readouterr().err
