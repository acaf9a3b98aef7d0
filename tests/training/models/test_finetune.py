"""Laws of encoders that learn: nothing but the tail moves, and what a run leaves is one encoder everywhere."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from tests.training.shapes import ALONE, draw_data, make_table
from training import scst
from training.data.batches import CaptionTable
from training.data.datasets import open_dataset
from training.data.features import compute_features
from training.loops.cross_entropy import Trainer
from training.models import checkpoint
from training.models.attention import AttentionConfig, AttentionDecoder
from training.models.checkpoint import CheckpointError, load_checkpoint, load_tensors
from training.models.decoder import CaptionDecoder, DecoderConfig
from training.models.encoder_weights import read_weights
from training.models.encoders import Encoder, EncoderError, load_encoder
from training.models.finetune import FineTuned, fine_tuned, split
from training.options import TrainingOptions
from training.train import main

NAME = "test_efficientnet"
BLOCKS = 5


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    """A tiny random encoder whose batch normalisations have seen something."""
    made = load_encoder(NAME, "random")
    generator = torch.Generator().manual_seed(1)
    for module in made.network.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.normal_(std=0.1, generator=generator)
            module.running_var.uniform_(0.5, 1.5, generator=generator)
    return made


@pytest.fixture(scope="module")
def pixels() -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(2).integers(0, 256, (3, 160, 160, 3), dtype=np.uint8))


def made(encoder: Encoder, learning: str) -> FineTuned:
    torch.manual_seed(0)
    _, tail = split(encoder, learning)
    config = DecoderConfig(encoder.feature_size, 20, pad_id=0, bottleneck=8, units=16, embedding=8, logit_hidden=8)
    return FineTuned(config, tail, encoder.network.state_dict())


# The split


@pytest.mark.parametrize("learning", range(BLOCKS + 1))
def test_the_frozen_part_and_the_tail_are_the_encoder(encoder: Encoder, pixels: torch.Tensor, learning: int) -> None:
    stem, tail = split(encoder, str(learning))
    assert stem is not None
    with torch.inference_mode():
        torch.testing.assert_close(tail(stem(pixels)), encoder(pixels), rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(split(encoder, "all")[1](pixels), encoder(pixels), rtol=0, atol=0)


@pytest.mark.parametrize("learning", ["0", "2", "all"])
def test_a_grid_is_split_as_a_vector_is_and_read_once_per_image(pixels: torch.Tensor, learning: str) -> None:
    grids = load_encoder(NAME, "random", grid=True)
    stem, tail = split(grids, learning)
    assert stem is None or stem.name == f"{NAME}-{BLOCKS - int(learning)}-blocks", "which vectors share"
    height, width, feature_size = grids.output_shape
    sizes = {"bottleneck": 8, "units": 16, "embedding": 8, "logit_hidden": 8, "attention_size": 4, "value_size": 6}
    config = AttentionConfig(feature_size, 20, 0, height=height, width=width, **sizes)  # type: ignore[arg-type]
    torch.manual_seed(0)
    tuned = fine_tuned(config, tail, grids.network.state_dict()).eval()
    assert isinstance(tuned, AttentionDecoder)
    for weight in (tuned.attention.to_gates.weight, tuned.attention.to_logits.weight):
        nn.init.normal_(weight)
    given = pixels if stem is None else stem(pixels)
    torch.testing.assert_close(tail(given), grids(pixels), rtol=1e-5, atol=1e-6)
    plain = AttentionDecoder(config).eval()
    plain.load_state_dict({name: tensor for name, tensor in tuned.state_dict().items() if not name.startswith("tail.")})
    owners = torch.tensor([2, 0, 0, 1, 2])
    tokens = torch.tensor([[2, 3, 0, 0], [2, 5, 0, 0], [2, 7, 8, 0], [2, 9, 4, 5], [2, 3, 4, 5]])
    keep = tokens != 0
    expected = plain(grids(pixels)[owners], tokens, keep)
    torch.testing.assert_close(tuned(given, tokens, keep, owners), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("learning", ["0", "2", "all"])
def test_the_gradient_reaches_the_tail_and_nothing_else(encoder: Encoder, pixels: torch.Tensor, learning: str) -> None:
    stem, tail = split(encoder, learning)
    tail(pixels if stem is None else stem(pixels)).square().sum().backward()
    reached = {
        tail.places[name]
        for name, parameter in tail.layers.named_parameters()
        if parameter.grad is not None and parameter.grad.abs().max() > 0
    }
    cut = 0 if learning == "all" else BLOCKS - int(learning)
    prefixes = (*(f"blocks.{i}." for i in range(cut, BLOCKS)), "conv_head.", "bn2.")
    expected = {name for name, _ in encoder.network.named_parameters() if name.startswith(prefixes) or cut == 0}
    assert reached == expected
    assert all(parameter.grad is None for parameter in encoder.parameters())


def test_batch_normalisation_keeps_its_statistics(encoder: Encoder, pixels: torch.Tensor) -> None:
    model = made(encoder, "all").train()
    before = {name: tensor.clone() for name, tensor in model.tail.state().items()}
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model(pixels, torch.ones(3, 4, dtype=torch.int64)).logsumexp(-1).sum().backward()
    optimizer.step()
    moved = {name for name, tensor in model.tail.state().items() if not torch.equal(tensor, before[name])}
    assert moved == {name for name, _ in encoder.network.named_parameters()}
    assert model.training
    assert not any(module.training for module in model.tail.modules())


def test_what_cannot_be_split_is_one_sentence(encoder: Encoder) -> None:
    with pytest.raises(EncoderError, match="has only 5 blocks, so 6 of them cannot be fine-tuned"):
        split(encoder, "6")
    with pytest.raises(EncoderError, match="only EfficientNets of timm"):
        split(load_encoder("test_resnet", "random"), "1")
    for wrong in ("some", "-1", "1.5"):
        with pytest.raises(ValueError, match="finetune_encoder must be a number"):
            TrainingOptions(finetune_encoder=wrong)


# Captions that share their image


def test_captions_that_share_an_image_score_as_each_with_its_own(encoder: Encoder, pixels: torch.Tensor) -> None:
    model = made(encoder, "all").eval()
    lengths = torch.tensor([2, 3, 3, 5, 6, 6, 7])
    keep = torch.arange(7)[None] < lengths[:, None]
    tokens = torch.randint(1, 20, (7, 7), generator=torch.Generator().manual_seed(3))
    owners = torch.tensor([2, 0, 1, 1, 0, 2, 2])
    with torch.inference_mode():
        torch.testing.assert_close(model(pixels, tokens, keep, owners), model(pixels[owners], tokens, keep))


# Whole runs


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_data(tmp_path_factory.mktemp("drawn") / "data", train=12, validation=6)


@pytest.fixture(scope="module")
def train(data: Path) -> Callable[..., int]:
    """Calls the command with options that make it quick."""

    def call(run: Path, *more: str) -> int:
        sizes = "--units 16 --embedding 8 --bottleneck 8 --logit-hidden 8 --min-count 1 --max-words 5"
        length = "--batches 4 --batch-size 12 --validation-batches 2 --patience 0 --ema 0.5"
        files = ["--data", str(data), "--output", str(run), "--threads", "1", "--photographs", "1"]
        rates = "--learning-rate 0.01 --encoder-learning-rate 0.003"
        return main(
            [*files, "--encoder", NAME, "--encoder-weights", "random", *f"{sizes} {length} {rates}".split(), *more]
        )

    return call


@pytest.fixture(scope="module")
def run(train: Callable[..., int], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "run"
    assert train(folder, "--finetune-encoder", "2", "--flip", "--epochs", "2") == 0
    return folder


def test_a_run_leaves_the_encoder_with_its_last_blocks_changed_and_nothing_else(run: Path) -> None:
    before = load_encoder(NAME, "random").network.state_dict()
    after = read_weights(run / checkpoint.ENCODER)
    assert after.keys() == before.keys()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    learned = {name for name in before if name.startswith(("blocks.3.", "blocks.4.", "conv_head.", "bn2."))}
    statistics = {name for name in before if name.endswith(("running_mean", "running_var", "num_batches_tracked"))}
    assert changed == learned - statistics


def test_the_decoder_on_features_of_the_runs_encoder_is_what_was_trained(run: Path, data: Path, tmp_path: Path) -> None:
    """The validation loss, found again the long way: encoder from its file, features, plain decoder."""
    loaded = load_checkpoint(run)
    assert type(loaded.decoder) is CaptionDecoder
    encoder = load_encoder(loaded.encoder_name, loaded.encoder_weights)
    assert encoder.fingerprint == loaded.config["encoder"]["fingerprint"] != load_encoder(NAME, "random").fingerprint
    dataset = open_dataset(data, "val")
    store = compute_features(dataset, encoder, tmp_path, progress=False)
    table = CaptionTable.build(dataset.examples, [store], loaded.vocabulary, max_words=5)
    batch = table.gather(np.arange(len(table.tokens)))
    tokens = torch.from_numpy(batch.tokens)
    with torch.inference_mode():
        logits = loaded.decoder(torch.from_numpy(batch.features), tokens[:, :-1])
    loss = nn.functional.cross_entropy(logits.transpose(1, 2), tokens[:, 1:], ignore_index=loaded.vocabulary.pad_id)
    epochs = json.loads((run / "history.json").read_text())
    assert float(loss) == pytest.approx(min(epoch["validation_loss"] for epoch in epochs), abs=2e-3)


def test_a_resumed_run_equals_an_uninterrupted_one(train: Callable[..., int], run: Path, tmp_path: Path) -> None:
    options = ("--finetune-encoder", "2", "--flip")
    features = ("--features", str(run.parent / "features"))
    assert train(tmp_path / "run", *options, *features, "--epochs", "1") == 0
    assert train(tmp_path / "run", *options, *features, "--epochs", "2", "--resume") == 0
    for file in (checkpoint.BEST, checkpoint.LAST):
        these, those = load_tensors(tmp_path / "run" / file)[0], load_tensors(run / file)[0]
        assert these.keys() == those.keys()
        assert all(torch.equal(these[name], those[name]) for name in these)
    assert read_weights(tmp_path / "run" / checkpoint.ENCODER).keys()


def test_all_of_an_encoder_learns_from_photographs(train: Callable[..., int], run: Path, tmp_path: Path) -> None:
    features = ("--features", str(run.parent / "features"))
    assert train(tmp_path / "run", "--finetune-encoder", "all", "--jitter", "2", "--epochs", "1", *features) == 0
    before, after = load_encoder(NAME, "random").network, read_weights(tmp_path / "run" / checkpoint.ENCODER)
    assert all(not torch.equal(tensor, after[name]) for name, tensor in before.named_parameters())


def test_the_encoder_has_its_own_learning_rate(encoder: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.training.shapes import make_options

    options = make_options(finetune_encoder="1", encoder_learning_rate=1e-5, learning_rate=1e-3)
    trainer = Trainer(made(encoder, "1"), options, make_table(4), make_table(4), ALONE)
    decoder, tail = trainer.parameter_groups()
    assert (decoder["scale"], tail["scale"]) == (1.0, pytest.approx(0.01))
    together = [id(parameter) for group in (decoder, tail) for parameter in group["params"]]
    assert sorted(together) == sorted(map(id, trainer.decoder.parameters()))
    assert len(tail["params"]) == len(list(made(encoder, "1").tail.parameters()))


def test_a_run_whose_encoder_is_gone_is_one_sentence(run: Path, tmp_path: Path) -> None:
    for file in ("config.json", "vocabulary.json", "best.safetensors"):
        (tmp_path / file).write_bytes((run / file).read_bytes())
    with pytest.raises(CheckpointError, match=r"encoder\.safetensors"):
        load_checkpoint(tmp_path)


def test_a_run_begins_with_the_decoder_and_the_encoder_of_another(
    train: Callable[..., int], run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    features = ("--features", str(run.parent / "features"))
    still = ("--learning-rate", "1e-12", "--encoder-learning-rate", "1e-12", "--ema", "0", "--epochs", "1")
    assert train(tmp_path / "wrong", *features, *still, "--from", str(run)) == 1
    assert "was trained with another encoder" in capsys.readouterr().err
    tuned = ("--encoder-weights", str(run / checkpoint.ENCODER), "--finetune-encoder", "1")
    assert train(tmp_path / "next", *features, *still, *tuned, "--from", str(run)) == 0
    before, after = (json.loads((folder / "history.json").read_text()) for folder in (run, tmp_path / "next"))
    best = min(epoch["validation_loss"] for epoch in before)
    assert after[0]["validation_loss"] == pytest.approx(best, abs=2e-3)
    kept = ("--encoder-weights", str(run / checkpoint.ENCODER), "--min-count", "1000")
    assert train(tmp_path / "kept", *features, *still, *kept, "--from", str(run)) == 0
    assert load_checkpoint(tmp_path / "kept").vocabulary.words == load_checkpoint(run).vocabulary.words
    assert load_checkpoint(tmp_path / "kept").encoder_weights == str(tmp_path / "kept" / checkpoint.ENCODER)
    runs = load_checkpoint(tmp_path / "next").runs
    assert [one["run"] for one in runs] == ["run", "next"]
    assert [one["options"]["learning_rate"] for one in runs] == [
        load_checkpoint(run).config["training"]["learning_rate"],
        1e-12,
    ]


def test_rewards_go_on_with_the_encoder_that_learned_as_it_is(data: Path, run: Path, tmp_path: Path) -> None:
    files = ["--data", str(data), "--features", str(run.parent / "features"), "--output", str(tmp_path / "rewarded")]
    options = ["--epochs", "1", "--batches", "4", "--batch-size", "6", "--max-words", "5", "--threads", "1"]
    assert scst.main([*files, "--from", str(run), *options]) == 0
    assert (tmp_path / "rewarded" / checkpoint.ENCODER).read_bytes() == (run / checkpoint.ENCODER).read_bytes()
    before, after = load_checkpoint(run), load_checkpoint(tmp_path / "rewarded")
    assert after.config["encoder"] == before.config["encoder"]
    assert not torch.equal(after.decoder.output.weight, before.decoder.output.weight)
