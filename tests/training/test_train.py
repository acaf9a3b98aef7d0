"""Laws of training: the same run however it is interrupted, honest errors, and everything a person wants to see."""

import json
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.training.shapes import (
    VOCABULARY,
    draw_data,
    make_options,
    make_store,
    make_table,
    make_trainer,
)
from training.data.features import FeatureStore
from training.data.mixture import Part
from training.loops import run_data
from training.loops.cross_entropy import Trainer
from training.loops.distributed import Processes
from training.models.checkpoint import load_checkpoint, load_tensors
from training.models.encoders import Encoder
from training.reports.training_report import predictions_table
from training.train import main

# The table


# The loop


def test_predictions_stand_under_the_true_words() -> None:
    lines = predictions_table(make_trainer(make_options()).decoder, VOCABULARY, make_table(9), count=2).splitlines()
    assert lines[0] == "00.jpg"
    assert lines[1].split() == ["true", *VOCABULARY.decode(make_table(9).tokens[0].tolist()).split(), "#END#"]
    assert len(lines[2].split()) == len(lines[1].split())


# The command


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_data(tmp_path_factory.mktemp("drawn") / "data")


@pytest.fixture
def command(data: Path, tmp_path: Path) -> Callable[..., int]:
    small = "--encoder test_vit --encoder-weights random --min-count 1 --batches 4 --batch-size 8 --units 16 --epochs 2"

    def call(*more: str) -> int:
        features = str(data.parent / "features")
        given = [] if "--data" in more else ["--data", str(data)]
        fixed = [*given, "--output", str(tmp_path / "run"), "--features", features, "--device", "cpu"]
        return main([*fixed, *small.split(), *more])

    return call


def test_the_command_leaves_everything_a_person_wants(
    command: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command("--photographs", "3") == 0
    run = tmp_path / "run"
    printed = capsys.readouterr().out
    assert "epoch   2  loss" in printed
    assert "predicted" in printed
    files = {path.name for path in run.iterdir()}
    assert files == {
        *("config.json", "vocabulary.json", "best.safetensors", "last.safetensors", "history.json"),
        *("curve.png", "predictions.txt", "report.html", "tensorboard"),
    }
    assert (run / "curve.png").read_bytes().startswith(b"\x89PNG")
    assert [epoch["epoch"] for epoch in json.loads((run / "history.json").read_text())] == [1, 2]
    assert list((run / "tensorboard").iterdir())
    report = (run / "report.html").read_text()
    assert report.count("<figure>") == report.count("data:image/jpeg;base64,") == 3
    assert report.count("data:image/png;base64,") == 1
    assert "a red circle" in report
    loaded = load_checkpoint(run)
    assert (loaded.encoder_name, loaded.encoder_weights) == ("test_vit", "random")
    assert loaded.config["data"]["images"] == {"train": 16, "val": 8}


def test_the_command_never_touches_a_run_unasked(
    command: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    assert command("--resume") == 1
    assert "contains no run to resume" in capsys.readouterr().err
    run.mkdir()
    (run / "precious").touch()
    assert command("--overwrite") == 1
    assert "is not a run's folder" in capsys.readouterr().err
    assert command() == 1
    assert "is not empty: continue its run with --resume, or delete it with --overwrite" in capsys.readouterr().err
    assert (run / "precious").exists()
    (run / "precious").unlink()
    run.rmdir()
    run.write_text("precious")
    assert command("--overwrite") == 1
    assert "is a file" in capsys.readouterr().err


def test_overwrite_keeps_the_old_run_until_another_can_begin(
    command: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    run.mkdir()
    for name in ("config.json", "best.safetensors"):
        (run / name).write_text("of an earlier run")
    assert command("--data", str(tmp_path / "nowhere"), "--output", str(tmp_path / "new")) == 1
    assert not (tmp_path / "new").exists()
    assert command("--overwrite", "--data", str(tmp_path / "nowhere")) == 1
    assert "nowhere cannot be opened: there is no such folder" in capsys.readouterr().err
    assert command("--overwrite", "--encoder", "no_such_encoder") == 1
    assert {path.name: path.read_text() for path in run.iterdir()} == {
        "config.json": "of an earlier run",
        "best.safetensors": "of an earlier run",
    }
    with pytest.raises(SystemExit):
        command("--overwrite", "--resume")
    assert "--resume cannot be used with --overwrite" in capsys.readouterr().err


def test_a_gpu_that_is_not_there_is_one_sentence(
    command: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert command("--device", "cuda") == 1
    assert capsys.readouterr().err.startswith("error: there is no GPU for process 1 on this machine")
    assert not (tmp_path / "run").exists()


def test_the_encoder_computes_where_the_decoder_trains(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []

    def compute(dataset: Any, encoder: Encoder, *_: Any, **__: Any) -> FeatureStore:
        seen.extend(tensor.device.type for tensor in (encoder.mean, *encoder.parameters()))
        return make_store(1)

    monkeypatch.setattr(run_data, "compute_features", compute)
    options = make_options(encoder="test_vit", encoder_weights="random")
    run_data.prepare(run_data.Source((Part(data),), tmp_path), options, Processes(0, 1, torch.device("meta")))
    assert set(seen) == {"meta"}


def test_the_command_resumes_only_the_same_run(
    command: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command("--epochs", "1") == 0
    assert command("--resume", "--dropout", "0.5") == 1
    assert "dropout was 0.0 and is 0.5" in capsys.readouterr().err
    assert command("--resume", "--epochs", "3") == 0
    resumed = load_tensors(tmp_path / "run" / "last.safetensors")[0]
    assert command("--overwrite", "--epochs", "3") == 0
    whole = load_tensors(tmp_path / "run" / "last.safetensors")[0]
    assert all(torch.equal(resumed[name], whole[name]) for name in whole)


def test_nothing_learnt_hangs_on_what_people_say_of_validation_images(
    command: Callable[..., int], data: Path, tmp_path: Path
) -> None:
    other = shutil.copytree(data, tmp_path / "other")
    held_out = set((data / "val.txt").read_text().split())
    rows = [line.split(",", 1) for line in (data / "captions.csv").read_text().splitlines()]
    said = [f"{name},some unheard words" if name in held_out else f"{name},{text}" for name, text in rows]
    (other / "captions.csv").write_text("\n".join(said) + "\n")
    runs = tmp_path / "one", tmp_path / "two"
    for run, folder in zip(runs, (data, other), strict=True):
        assert command("--epochs", "1", "--photographs", "0", "--data", str(folder), "--output", str(run)) == 0
    assert runs[0].joinpath("vocabulary.json").read_bytes() == runs[1].joinpath("vocabulary.json").read_bytes()
    these, those = (load_tensors(run / "last.safetensors")[0] for run in runs)
    assert all(torch.equal(these[name], those[name]) for name in these)
    losses = [json.loads((run / "history.json").read_text())[0]["validation_loss"] for run in runs]
    assert losses[0] != losses[1]


def test_ctrl_c_ends_the_command_cleanly_and_it_can_be_resumed(
    command: Callable[..., int],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    original, calls = Trainer.take_step, iter(range(100))

    def interrupted(self: Trainer, *arguments: Any) -> tuple[torch.Tensor, float]:
        if next(calls) == 6:
            signal.raise_signal(signal.SIGINT)
        return original(self, *arguments)

    # a shell lets its background jobs ignore Ctrl-C, and Python inherits that
    inherited = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with monkeypatch.context() as patched:
            patched.setattr(Trainer, "take_step", interrupted)
            assert command() == 130
    finally:
        signal.signal(signal.SIGINT, inherited)
    assert "continue with the same command and --resume" in capsys.readouterr().err
    assert command("--resume") == 0
    assert len(json.loads((tmp_path / "run" / "history.json").read_text())) == 2


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (("--epochs", "0"), "--epochs must be at least 1, but it is 0"),
        (("--schedule", "linear"), "--schedule must be"),
        (("--learning-rate", "0"), "--learning-rate must be above 0"),
        (("--threads", "-2"), "--threads must be at least 0, but it is -2"),
        (("--photographs", "-1"), "--photographs must be at least 0, but it is -1"),
        (("--device", "gpu"), "--device must be one of 'auto', 'cpu', 'cuda', but it is 'gpu'"),
        (("--epochs", "x"), "--epochs must be a whole number, but it is 'x'"),
        (("--epoch-count", "2"), "there is no flag --epoch-count (did you mean --epochs?)"),
        (("--from", "nowhere"), "--from must be the folder of a run, but there is no folder nowhere"),
        (("--tied",), "--tied embeddings need --logit-hidden equal to embedding"),
    ],
)
def test_options_that_make_no_sense_are_named(
    command: Callable[..., int], capsys: pytest.CaptureFixture[str], more: tuple[str, ...], sentence: str
) -> None:
    with pytest.raises(SystemExit) as stop:
        command(*more)
    assert stop.value.code == 2
    assert sentence in capsys.readouterr().err
