"""Laws of training: the same run however it is interrupted, honest errors, and everything a person wants to see."""

import json
import shutil
import signal
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.training.shapes import (
    VOCABULARY,
    draw_data,
    make_examples,
    make_options,
    make_store,
    make_table,
    make_trainer,
)
from training.data.batches import CaptionTable
from training.data.examples import DataError
from training.data.features import FeatureStore
from training.data.mixture import Part
from training.loops import run_data
from training.loops.cross_entropy import Epoch, Trainer
from training.loops.distributed import Processes
from training.loops.loop import TrainingError
from training.loops.sampler import greedy_captions
from training.models.checkpoint import load_checkpoint, load_tensors
from training.models.encoders import Encoder
from training.reports.training_report import predictions_table
from training.train import main


def run(trainer: Trainer, folder: Path) -> Trainer:
    folder.mkdir(exist_ok=True)
    for _ in trainer.train(folder):
        pass
    return trainer


def numbers(trainer: Trainer) -> list[dict[str, Any]]:
    return [asdict(epoch) | {"seconds": 0} for epoch in trainer.history]


def assert_same_run(one: Trainer, other: Trainer, first: Path, second: Path) -> None:
    assert numbers(one) == numbers(other)
    for file in ("best.safetensors", "last.safetensors"):
        these, those = load_tensors(first / file)[0], load_tensors(second / file)[0]
        assert these.keys() == those.keys()
        assert all(torch.equal(these[name], those[name]) for name in these)


# The table


def test_a_gathered_batch_equals_its_captions_one_by_one() -> None:
    table, store = make_table(12), make_store(12)
    pairs = [(example.name, text) for example in make_examples(12) for text in example.captions]
    chosen = np.array([3, 0, 7, 7, 11])
    batch = table.gather(chosen)
    longest = max(len(VOCABULARY.encode(pairs[i][1], 5)) for i in chosen)
    assert batch.tokens.shape == (5, longest)
    for i, image, features, tokens in zip(chosen, batch.images, batch.features, batch.tokens, strict=True):
        name, text = pairs[i]
        assert table.names[image] == name
        np.testing.assert_array_equal(features, store.matrix[store.row(name)].astype(np.float32))
        assert [int(token) for token in tokens if token != VOCABULARY.pad_id] == VOCABULARY.encode(text, 5)


def test_validation_batches_show_different_captions_each_once() -> None:
    table = make_table(9)
    batches = list(table.sampled(np.random.default_rng(0), batches=100, batch_size=4))
    assert sum(len(batch.tokens) for batch in batches) == len(table.tokens)
    assert [len(batch.tokens) for batch in table.sampled(np.random.default_rng(0), 2, 4)] == [4, 4]


def test_every_view_of_an_image_is_trained_on() -> None:
    stores = [make_store(4), make_store(4, seed=5)]
    table = CaptionTable.build(make_examples(4), stores, VOCABULARY, max_words=5)
    views = np.array([0, 1, 1, 0])
    batch = table.gather(table.offsets[:4], views)
    for image, view in enumerate(views):
        np.testing.assert_array_equal(batch.features[image], stores[view].matrix[image].astype(np.float32))
    drawn = np.concatenate([b.features for b in table.drawn(np.random.default_rng(0), 10, 4)])
    assert len(np.unique(drawn, axis=0)) == 8


def test_images_without_features_are_left_out() -> None:
    table = CaptionTable.build(make_examples(6), [make_store(4)], VOCABULARY, max_words=5)
    assert table.names == ("00.jpg", "01.jpg", "02.jpg", "03.jpg")
    with pytest.raises(DataError, match="nothing to train on"):
        CaptionTable.build((), [make_store(4)], VOCABULARY, max_words=5)


# The loop


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"tied": True, "schedule": "cosine", "label_smoothing": 0.1},
        {"ema": 0.9, "warmup": 9, "bf16": True, "tied": True},
        {"decoder": "attention", "attention_learning_rate": 0.02, "bf16": True},
    ],
)
def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(tmp_path: Path, changes: dict[str, Any]) -> None:
    whole, part = tmp_path / "whole", tmp_path / "part"
    options = make_options(**changes)
    one = run(make_trainer(options), whole)
    part.mkdir()
    first_half = make_trainer(options).train(part)
    assert [next(first_half).epoch, next(first_half).epoch] == [1, 2]
    torch.manual_seed(99)  # nothing hangs on what generators were left at
    other = make_trainer(options)
    other.resume(part)
    assert [epoch.epoch for epoch in other.history] == [1, 2]
    assert_same_run(one, run(other, part), whole, part)


@pytest.mark.parametrize("decoder", ["lstm", "attention"])
def test_the_decoder_learns_the_shapes(tmp_path: Path, decoder: str) -> None:
    options = make_options(epochs=4, batches=150, learning_rate=1e-2, dropout=0.0, decoder=decoder)
    trainer = run(make_trainer(options), tmp_path)
    assert trainer.history[-1].validation_loss < 1.0
    table = trainer.validation_table
    said = greedy_captions(trainer.decoder, VOCABULARY, table.features_of(np.arange(9)))
    colours = [truth[0].split()[1] for truth in table.captions]
    assert [colour for colour, text in zip(colours, said, strict=True) if colour in text.split()] == colours


def test_the_best_checkpoint_is_of_the_lowest_validation_loss(tmp_path: Path) -> None:
    trainer = make_trainer(make_options(epochs=6, learning_rate=0.3))
    weights = {}
    for epoch in trainer.train(tmp_path):
        weights[epoch.epoch] = trainer.decoder.output.weight.detach().clone()
    lowest = min(trainer.history, key=lambda epoch: epoch.validation_loss).epoch
    for file, epoch_number in (("best.safetensors", lowest), ("last.safetensors", 6)):
        assert torch.equal(load_tensors(tmp_path / file)[0]["decoder.output.weight"], weights[epoch_number])


def noted(number: int, loss: float) -> Epoch:
    return Epoch(number, 1.0, 0.5, loss, 0.5, learning_rate=1e-3, seconds=1.0, precision="float32")


def test_patience_ends_a_run_that_gets_no_better() -> None:
    trainer = make_trainer(make_options(epochs=30, patience=2))
    trainer.history = [noted(number, loss) for number, loss in ((1, 2.0), (2, 3.0))]
    assert not trainer.finished
    trainer.history.append(replace(trainer.history[-1], epoch=3))
    assert trainer.finished


def test_the_cosine_schedule_falls_from_the_learning_rate_to_almost_nothing(tmp_path: Path) -> None:
    trainer = run(make_trainer(make_options(schedule="cosine", batches=25)), tmp_path)
    rates = [epoch.learning_rate for epoch in trainer.history]
    assert rates == sorted(rates, reverse=True)
    assert 0 < rates[-1] < 1e-5
    assert rates[1] == pytest.approx(0.5e-3, rel=0.1)


def test_a_loss_that_is_no_number_stops_the_run_and_keeps_the_checkpoints(tmp_path: Path) -> None:
    trainer = make_trainer(make_options(gradient_clip=0.0))
    epochs = trainer.train(tmp_path)
    next(epochs)
    before = (tmp_path / "last.safetensors").read_bytes()
    with torch.no_grad():
        trainer.decoder.output.bias.fill_(torch.nan)
    with pytest.raises(TrainingError, match="the loss became nan in epoch 2: lower the learning rate"):
        next(epochs)
    assert (tmp_path / "last.safetensors").read_bytes() == before


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
    assert "not allowed with" in capsys.readouterr().err


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
    original, calls = Trainer._step, iter(range(100))

    def interrupted(self: Trainer, *arguments: Any) -> tuple[torch.Tensor, float]:
        if next(calls) == 6:
            signal.raise_signal(signal.SIGINT)
        return original(self, *arguments)

    # a shell lets its background jobs ignore Ctrl-C, and Python inherits that
    inherited = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with monkeypatch.context() as patched:
            patched.setattr(Trainer, "_step", interrupted)
            assert command() == 130
    finally:
        signal.signal(signal.SIGINT, inherited)
    assert "continue with the same command and --resume" in capsys.readouterr().err
    assert command("--resume") == 0
    assert len(json.loads((tmp_path / "run" / "history.json").read_text())) == 2


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (("--epochs", "0"), "epochs must be at least 1"),
        (("--schedule", "linear"), "schedule must be"),
        (("--learning-rate", "0"), "learning_rate must be above 0"),
        (("--threads", "-2"), "--threads must be at least 0, but it is -2"),
        (("--photographs", "-1"), "--photographs must be at least 0, but it is -1"),
        (("--device", "gpu"), "invalid choice: 'gpu'"),
        (("--tied",), "tied embeddings need logit_hidden equal to embedding"),
    ],
)
def test_options_that_make_no_sense_are_named(
    command: Callable[..., int], capsys: pytest.CaptureFixture[str], more: tuple[str, ...], sentence: str
) -> None:
    with pytest.raises(SystemExit) as stop:
        command(*more)
    assert stop.value.code == 2
    assert sentence in capsys.readouterr().err
