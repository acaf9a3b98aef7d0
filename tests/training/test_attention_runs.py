"""Laws of whole runs with attention: with sentences, to rewards; what does not fit is refused."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.training.shapes import draw_data
from training import scst, train
from training.models.attention import AttentionDecoder
from training.models.checkpoint import load_checkpoint
from training.models.encoders import load_encoder

NAME = "test_efficientnet"
SENTENCES: tuple[str, ...] = ("said.jsonl",)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Drawn photographs and sentences."""
    made = tmp_path_factory.mktemp("attention")
    draw_data(made / "data", train=8, validation=4)
    lines = [{"image": f"{i}.jpg", "captions": ["a green square", "here is a red circle"]} for i in range(5)]
    (made / "said.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    return made


@pytest.fixture(scope="module")
def call(folder: Path) -> Callable[..., int]:
    """Calls training.train, or training.scst with --samples, on the photographs and the sentences."""

    def start(run: str, *more: str) -> int:
        files = ["--data", f"{folder / 'data'}=2"]
        files += [word for name in SENTENCES for word in ("--sentences", f"{folder / name}=1")]
        short = ["--threads", "1", "--epochs", "1", "--batches", "2", "--batch-size", "8", "--max-words", "5"]
        given = ["--output", str(folder / run), *files, *short, *more]
        if "--samples" in more:
            return scst.main(given)
        sizes = "--units 16 --embedding 8 --bottleneck 8 --logit-hidden 8 --attention-size 4 --value-size 6"
        fixed = f"--encoder {NAME} --encoder-weights random --photographs 1 --validation-batches 1 --min-count 1"
        return train.main([*fixed.split(), *sizes.split(), *given])

    return start


@pytest.fixture(scope="module")
def looking(folder: Path, call: Callable[..., int]) -> Path:
    """A run with attention that started from another one."""
    assert call("first", "--decoder", "attention") == 0
    assert call("looking", "--decoder", "attention", "--from", str(folder / "first")) == 0
    return folder / "looking"


def test_a_run_with_attention_is_a_run_like_any_other(looking: Path, folder: Path) -> None:
    loaded = load_checkpoint(looking)
    assert isinstance(loaded.decoder, AttentionDecoder)
    assert loaded.decoder.config.feature_shape == (5, 5, 256)
    assert [run["run"] for run in loaded.runs] == ["first", "looking"]
    encoder = load_encoder(loaded.encoder_name, loaded.encoder_weights, grid=True)
    assert encoder.output_shape == loaded.decoder.config.feature_shape
    described = {"name": NAME, "weights": "random", "feature_size": 256, "grid": [5, 5]}
    assert loaded.config["encoder"] == described | {"fingerprint": encoder.fingerprint}


def test_rewards_go_on_with_attention(looking: Path, folder: Path, call: Callable[..., int]) -> None:
    assert call("rewarded", "--from", str(looking), "--samples", "2", "--cross-entropy", "0.1") == 0
    before, after = load_checkpoint(looking), load_checkpoint(folder / "rewarded")
    assert isinstance(before.decoder, AttentionDecoder)
    assert isinstance(after.decoder, AttentionDecoder)
    assert isinstance(before.decoder, AttentionDecoder)
    assert after.decoder.config == before.decoder.config
    assert not torch.equal(after.decoder.attention.to_gates.weight, before.decoder.attention.to_gates.weight)


@pytest.mark.parametrize("learning", ["1", "all"])
def test_an_encoder_learns_with_attention(
    looking: Path, folder: Path, call: Callable[..., int], learning: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"{__name__}.SENTENCES", ())
    run = f"tuned-{learning}"
    given = "--decoder", "attention", "--finetune-encoder", learning, "--encoder-learning-rate", "0.001"
    assert call(run, *given, "--from", str(looking)) == 0
    tuned = load_checkpoint(folder / run)
    encoder = load_encoder(tuned.encoder_name, tuned.encoder_weights, grid=True)
    assert tuned.config["encoder"]["fingerprint"] == encoder.fingerprint
    assert encoder.fingerprint != load_encoder(NAME, "random", grid=True).fingerprint
    assert encoder.output_shape == tuned.decoder.config.feature_shape
    before = load_checkpoint(looking).decoder
    assert isinstance(before, AttentionDecoder)
    assert isinstance(tuned.decoder, AttentionDecoder)
    assert not torch.equal(before.attention.keys.weight, tuned.decoder.attention.keys.weight)
    assert call(f"{run}-rewarded", "--from", str(folder / run), "--samples", "2") == 0


def test_what_does_not_fit_together_is_one_sentence(
    looking: Path, call: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("back", "--from", str(looking)) == 1
    assert "pass --decoder attention" in capsys.readouterr().err
    assert call("vit", "--decoder", "attention", "--encoder", "test_vit") == 1
    assert "test_vit gives no grid of features" in capsys.readouterr().err
