"""Laws of the command of self-critical training: what it begins with, leaves and refuses."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.training.shapes import draw_data
from training import scst
from training import train as cross_entropy
from training.models.checkpoint import load_checkpoint


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with drawn data and a run of cross-entropy training."""
    folder = tmp_path_factory.mktemp("start")
    draw_data(folder / "data")
    small = (
        "--encoder test_vit --encoder-weights random --min-count 1 --batches 30 --batch-size 8 --units 16 --epochs 1"
    )
    fixed = ["--data", str(folder / "data"), "--output", str(folder / "run"), "--device", "cpu", "--photographs", "1"]
    assert cross_entropy.main([*fixed, *small.split(), "--learning-rate", "0.01", "--ema", "0.9"]) == 0
    return folder


@pytest.fixture
def command(start: Path, tmp_path: Path) -> Callable[..., int]:
    def call(*more: str) -> int:
        fixed = ["--from", start / "run", "--data", start / "data", "--features", start / "features"]
        small = "--device cpu --batches 4 --batch-size 8 --epochs 2 --learning-rate 0.001"
        return scst.main([*map(str, fixed), "--output", str(tmp_path / "run"), *small.split(), *more])

    return call


def test_the_command_leaves_a_run_that_export_reads(
    command: Callable[..., int], start: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command() == 0
    folder = tmp_path / "run"
    assert {path.name for path in folder.iterdir()} == {
        *("config.json", "vocabulary.json", "best.safetensors", "last.safetensors", "history.json"),
        *("curve.png", "predictions.txt", "tensorboard"),
    }
    assert "validation CIDEr" in capsys.readouterr().out
    assert (folder / "curve.png").read_bytes().startswith(b"\x89PNG")
    assert [epoch["epoch"] for epoch in json.loads((folder / "history.json").read_text())] == [1, 2]
    before, after = load_checkpoint(start / "run"), load_checkpoint(folder)
    assert after.config["scst"]["samples"] == 5
    assert after.config["from"]["run"] == "run"
    assert [(one["run"], one["kind"]) for one in after.runs] == [("run", "cross-entropy"), ("run", "self-critical")]
    assert [one["options"] for one in after.runs] == [before.config["training"], after.config["scst"]]
    for name in ("decoder", "encoder", "training"):
        assert after.config[name] == before.config[name]
    assert (after.vocabulary, after.encoder_name) == (before.vocabulary, before.encoder_name)
    assert not torch.equal(after.decoder.output.weight, before.decoder.output.weight)


def test_the_command_continues_only_the_same_run_in_a_folder_of_its_own(
    command: Callable[..., int], start: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command("--epochs", "1") == 0
    assert command("--resume", "--samples", "4", "--bleu", "1") == 1
    assert "samples was 5 and is 4; bleu was 0.0 and is 1.0" in capsys.readouterr().err
    assert command("--resume") == 0
    assert command("--overwrite", "--output", str(start / "run")) == 1
    assert "is the --from run itself" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (("--samples", "1"), "--samples must be at least 2, but it is 1"),
        (("--sigma", "0"), "--sigma must be above 0"),
    ],
)
def test_options_that_make_no_sense_are_named(
    command: Callable[..., int], capsys: pytest.CaptureFixture[str], more: tuple[str, ...], sentence: str
) -> None:
    with pytest.raises(SystemExit) as stop:
        command(*more)
    assert stop.value.code == 2
    assert sentence in capsys.readouterr().err


def test_an_encoder_that_is_another_now_is_refused(
    command: Callable[..., int], start: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = json.loads((start / "run" / "config.json").read_text())
    config["encoder"]["fingerprint"] = "0" * 64
    other = tmp_path / "other"
    other.mkdir()
    for path in (start / "run").glob("*.*"):
        (other / path.name).write_bytes(path.read_bytes())
    (other / "config.json").write_text(json.dumps(config))
    assert command("--from", str(other)) == 1
    assert "the encoder weights have changed" in capsys.readouterr().err
