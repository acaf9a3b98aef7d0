"""Laws of what every run has in common: averaged weights, rates, buckets of like length."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest
import torch

from tests.training.shapes import ALONE, VOCABULARY, make_options, make_trainer
from training.loops import precision
from training.loops.cross_entropy import Epoch, Trainer
from training.loops.distributed import Processes
from training.loops.loop import Loop, TrainingError
from training.loops.sampler import greedy_captions
from training.models.checkpoint import load_tensors
from training.options import TrainingOptions

L = TypeVar("L", bound=Loop[Any])


# Averaged weights


def test_the_average_follows_its_formula() -> None:
    trainer = make_trainer(make_options(ema=0.8))
    batches = trainer.train_table.drawn(np.random.default_rng(0), 20, 8)
    expected = [parameter.detach().double() for parameter in trainer.decoder.parameters()]
    for step, batch in enumerate(batches):
        trainer.take_step(batch, step)
        kept = min(0.8, (1 + step) / (10 + step))
        new = [parameter.detach().double() for parameter in trainer.decoder.parameters()]
        expected = [kept * old + (1 - kept) * now for old, now in zip(expected, new, strict=True)]
    for average, wanted in zip(trainer.averaged.parameters(), expected, strict=True):
        torch.testing.assert_close(average.double(), wanted, atol=1e-6, rtol=1e-5)
        assert not average.requires_grad
    assert not torch.equal(trainer.averaged.output.weight, trainer.decoder.output.weight)


def test_checkpoints_hold_the_average_and_beside_it_what_goes_on(tmp_path: Path) -> None:
    trainer = make_trainer(make_options(ema=0.8, epochs=1))
    list(trainer.train(tmp_path))
    last, best = (load_tensors(tmp_path / f"{name}.safetensors")[0] for name in ("last", "best"))
    assert torch.equal(last["decoder.output.weight"], trainer.averaged.output.weight)
    assert torch.equal(best["decoder.output.weight"], trainer.averaged.output.weight)
    assert torch.equal(last["raw.output.weight"], trainer.decoder.output.weight)
    assert not any(name.startswith("raw.") for name in best)


# The learning rate


def test_the_learning_rate_rises_over_the_warm_up_and_then_follows_the_schedule() -> None:
    trainer = make_trainer(make_options(warmup=4, learning_rate=1.0))
    assert [trainer.rate_at(step) for step in range(6)] == [0.25, 0.5, 0.75, 1, 1, 1]
    plain, warm = (make_trainer(make_options(schedule="cosine", warmup=warmup)) for warmup in (0, 4))
    assert [warm.rate_at(step) for step in range(4, 24)] == [plain.rate_at(step) for step in range(4, 24)]
    assert warm.rate_at(0) == plain.rate_at(0) / 4


# One step


def grounds(trainer: Trainer) -> torch.Tensor:
    """A loss without a slope."""
    return torch.stack([(parameter * 0).sum() for parameter in trainer.decoder.parameters()]).sum()


def test_a_step_on_level_ground_shrinks_every_weight_by_rate_times_decay() -> None:
    trainer = make_trainer(make_options(weight_decay=0.2, learning_rate=0.5))
    before = [parameter.detach().clone() for parameter in trainer.decoder.parameters()]
    trainer.descend(grounds(trainer), 0)
    for was, now in zip(before, trainer.decoder.parameters(), strict=True):
        torch.testing.assert_close(now.detach(), was * (1 - 0.5 * 0.2))
    plain = make_trainer(make_options(learning_rate=0.5))
    plain.descend(grounds(plain), 0)
    assert all(torch.equal(was, now) for was, now in zip(before, plain.decoder.parameters(), strict=True))


@pytest.mark.parametrize("clip", [0.25, 0.0])
def test_the_gradient_is_at_most_as_long_as_the_clip(clip: float) -> None:
    trainer = make_trainer(make_options(gradient_clip=clip))
    batch = trainer.train_table.gather(np.arange(8))
    trainer.descend(100 * trainer.counts(trainer.decoder, batch)[0], 0)
    slopes = [parameter.grad for parameter in trainer.decoder.parameters() if parameter.grad is not None]
    length = float(torch.stack([slope.norm() for slope in slopes]).norm())
    assert length == pytest.approx(clip, rel=1e-3) if clip else length > 10


def test_label_smoothing_spreads_a_share_of_the_loss_over_all_words() -> None:
    trainer = make_trainer(make_options(label_smoothing=0.3, dropout=0.0))
    batch = trainer.train_table.gather(np.arange(20))
    tokens = torch.from_numpy(batch.tokens)
    logs = trainer.decoder(torch.from_numpy(batch.features), tokens[:, :-1]).log_softmax(dim=-1)
    kept = tokens[:, 1:] != VOCABULARY.pad_id
    true = -logs.gather(2, tokens[:, 1:, None])[..., 0][kept].sum()
    spread = -logs.mean(dim=-1)[kept].sum()
    torch.testing.assert_close(trainer.counts(trainer.decoder, batch, training=True)[0], 0.7 * true + 0.3 * spread)
    torch.testing.assert_close(trainer.counts(trainer.decoder, batch)[0], true)  # what is measured has none


# Precision and options


def test_bfloat16_learns_the_same_with_weights_in_float32() -> None:
    history = []
    for bf16 in (False, True):
        trainer = make_trainer(make_options(bf16=bf16, epochs=1, batches=60, learning_rate=1e-2, dropout=0.0))
        history.append(trainer.run_epoch(1, None))
        assert {parameter.dtype for parameter in trainer.decoder.parameters()} == {torch.float32}
    assert history[0].precision == "float32"
    assert history[1].precision == ("bfloat16" if precision.has_bfloat16(torch.device("cpu")) else "float32")
    assert (history[0].train_loss == history[1].train_loss) == (history[0].precision == history[1].precision)
    assert history[1].validation_loss == pytest.approx(history[0].validation_loss, rel=0.03)


def test_where_there_is_no_bfloat16_a_run_is_one_in_float32_and_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(precision, "has_bfloat16", lambda device: False)
    one, other = (make_trainer(make_options(bf16=bf16)).run_epoch(1, None) for bf16 in (True, False))
    assert replace(one, seconds=0) == replace(other, seconds=0)
    assert one.precision == "float32"
    said = capsys.readouterr().out
    assert said.count("\n") == 1
    assert said.startswith("this processor has no bfloat16: training computes in float32")


def test_what_only_one_process_lacks_none_uses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "has_bfloat16", lambda device: True)
    for able, wanted in ((3.0, "bfloat16"), (2.0, "float32")):
        monkeypatch.setattr(Processes, "sum", lambda self, values, able=able: values * 0 + able)
        assert precision.agreed(Processes(1, 3, ALONE.device), bf16=True) == wanted


def test_a_run_that_goes_on_in_another_precision_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    next(make_trainer(make_options()).train(tmp_path))
    for precision_now, said in (("float32", ""), ("bfloat16", "computed in float32 and the next ones will be in bf")):
        trainer = make_trainer(make_options())
        trainer.precision = precision_now
        trainer.resume(tmp_path)
        printed = capsys.readouterr().out
        assert said in printed
        assert bool(printed) == bool(said)
    assert [epoch.precision for epoch in trainer.history] == ["float32"]


def test_an_option_that_an_earlier_run_did_not_know_had_its_default() -> None:
    options = make_options()
    earlier = {name: getattr(options, name) for name in ("epochs", "batches", "batch_size", "validation_batches")}
    assert TrainingOptions(**earlier).differences(earlier) == []
    assert TrainingOptions(**earlier, ema=0.9).differences(earlier) == ["ema was 0.0 and is 0.9"]


@pytest.mark.parametrize(
    ("changes", "free"),
    [
        ({}, {"patience", "epochs"}),
        ({"schedule": "cosine"}, {"patience"}),
    ],
)
def test_a_run_that_stretches_over_its_epochs_cannot_be_made_longer(changes: dict[str, Any], free: set[str]) -> None:
    assert make_options(**changes).free == free


def run(loop: L, folder: Path) -> L:
    """Trains to the end."""
    folder.mkdir(exist_ok=True)
    for _ in loop.train(folder):
        pass
    return loop


def numbers(trainer: Loop[Any]) -> list[dict[str, Any]]:
    return [asdict(epoch) | {"seconds": 0} for epoch in trainer.history]


def assert_same_run(one: Loop[Any], other: Loop[Any], first: Path, second: Path) -> None:
    assert numbers(one) == numbers(other)
    for file in ("best.safetensors", "last.safetensors"):
        these, those = load_tensors(first / file)[0], load_tensors(second / file)[0]
        assert these.keys() == those.keys()
        assert all(torch.equal(these[name], those[name]) for name in these)


@pytest.mark.parametrize(
    "changes",
    [
        {"schedule": "cosine", "label_smoothing": 0.1},
        {"ema": 0.9, "warmup": 9, "bf16": True, "tied": True},
        {"decoder": "attention", "bf16": True},
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
