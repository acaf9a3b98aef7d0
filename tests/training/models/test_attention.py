"""Laws of the decoder with attention: it begins as the plain one, and looks at each image's own cells."""

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from tests.training.models.test_checkpoint import SIZES, WORDS, write_run
from training.models import checkpoint
from training.models.attention import AttentionConfig, AttentionDecoder
from training.models.checkpoint import CheckpointError, begin_with, load_checkpoint, make_decoder
from training.models.decoder import CaptionDecoder
from training.options import TrainingOptions

SMALL = AttentionConfig(9, 23, 2, 5, 12, 7, 7, height=2, width=3, attention_size=4, value_size=6)


def make(config: AttentionConfig = SMALL) -> AttentionDecoder:
    """A decoder whose attention matters."""
    torch.manual_seed(0)
    decoder = AttentionDecoder(config)
    for layer in (decoder.attention.to_gates, decoder.attention.to_logits):
        torch.nn.init.normal_(layer.weight)
    return decoder


def grids(count: int) -> Tensor:
    return torch.randn(count, *SMALL.feature_shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("tied", [False, True])
def test_forward_over_a_sequence_equals_steps_one_by_one(tied: bool) -> None:
    decoder, ids = make(replace(SMALL, tied=tied, dropout=0.5)).eval(), torch.randint(0, 23, (4, 11))
    keep = torch.rand(4, 11) < 0.5
    with torch.no_grad():
        whole = decoder(grids(4), ids)  # (4, 11, 23)
        torch.testing.assert_close(decoder(grids(4), ids, keep), whole[keep])
        state, context = decoder.start(grids(4))
        for position in range(ids.shape[1]):
            logits, state = decoder.step(ids[:, position], state, context)
            torch.testing.assert_close(logits, whole[:, position], atol=1e-5, rtol=1e-5)


def test_in_training_a_feature_is_dropped_in_all_cells_of_an_image_or_in_none() -> None:
    decoder = AttentionDecoder(replace(SMALL, value_size=SMALL.feature_size, dropout=0.5)).train()
    with torch.no_grad():  # values show what they are computed from
        decoder.attention.values.weight.copy_(torch.eye(SMALL.feature_size))
        decoder.attention.values.bias.zero_()
    torch.manual_seed(2)
    images = grids(20) + 10  # nowhere zero
    seen = decoder.start(images)[1][1]  # (images, cells, feature_size)
    dropped = (seen == 0).all(dim=1)
    assert torch.equal(dropped, (seen == 0).any(dim=1))
    assert 0.3 < float(dropped.float().mean()) < 0.7
    assert len({*map(tuple, dropped.tolist())}) > 10, "each image loses others"
    kept = ~dropped[:, None].expand_as(seen)
    torch.testing.assert_close(seen[kept], 2 * images.flatten(1, 2)[kept])
    assert torch.equal(decoder.eval().start(images)[1][1], images.flatten(1, 2))


def test_a_step_tells_how_much_each_cell_weighs() -> None:
    decoder, ids = make(), torch.tensor([3, 4, 5])
    state, context = decoder.start(grids(3))
    logits, following, weights = decoder.step_with_attention(ids, state, context)
    assert weights.shape == (3, 2, 3)
    assert (weights > 0).all()
    torch.testing.assert_close(weights.sum(dim=(1, 2)), torch.ones(3))
    again, same = decoder.step(ids, state, context)
    assert torch.equal(logits, again)
    assert all(map(torch.equal, following, same))
    moved = decoder.start(grids(3).flip(2))  # left and right exchanged: it looks at the same things in the other place
    torch.testing.assert_close(decoder.step_with_attention(ids, *moved)[2], weights.flip(2))


def test_a_batch_equals_its_images_one_by_one() -> None:
    decoder, ids = make().eval(), torch.randint(0, 23, (3, 5))
    alone = torch.cat([decoder(grids(3)[i : i + 1], ids[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(decoder(grids(3), ids), alone)


def test_every_parameter_learns() -> None:
    decoder = make()
    decoder(grids(4), torch.randint(3, 23, (4, 6))).logsumexp(-1).sum().backward()
    for name, parameter in decoder.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.any(), name


@pytest.mark.parametrize("size", ["height", "width", "attention_size", "value_size", "units"])
def test_a_size_that_makes_no_sense_is_named(size: str) -> None:
    with pytest.raises(ValueError, match=f"{size} must be at least 1, but it is 0"):
        replace(SMALL, **cast(Any, {size: 0}))


# Runs

LOOKING = AttentionConfig(**asdict(SIZES), height=2, width=2, attention_size=4, value_size=3)


def test_what_is_loaded_is_what_was_saved(tmp_path: Path) -> None:
    saved = write_run(tmp_path, LOOKING)
    loaded = load_checkpoint(tmp_path).decoder
    assert type(loaded) is AttentionDecoder
    assert loaded.config == LOOKING
    assert all(map(torch.equal, saved.state_dict().values(), loaded.state_dict().values()))


def test_a_run_of_an_earlier_version_names_no_kind(tmp_path: Path) -> None:
    write_run(tmp_path)
    config = json.loads((tmp_path / checkpoint.CONFIG).read_text())
    assert config["decoder"].pop("kind") == "lstm"
    (tmp_path / checkpoint.CONFIG).write_text(json.dumps(config))
    assert type(load_checkpoint(tmp_path).decoder) is CaptionDecoder
    config["decoder"]["kind"] = "telepathy"
    (tmp_path / checkpoint.CONFIG).write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match='kind "telepathy", but this version knows only lstm, attention'):
        load_checkpoint(tmp_path)


def test_before_training_it_is_the_plain_decoder_of_the_mean() -> None:
    torch.manual_seed(0)
    decoder, plain = make_decoder(LOOKING), make_decoder(SIZES)
    assert not plain.load_state_dict(decoder.state_dict(), strict=False).missing_keys
    images, ids = torch.randn(3, 2, 2, 6), torch.randint(0, len(WORDS), (3, 5))
    torch.testing.assert_close(decoder(images, ids), plain(images.mean(dim=(1, 2)), ids))


def test_a_decoder_starts_only_from_one_of_its_kind_and_sizes(tmp_path: Path) -> None:
    write_run(tmp_path / "attention", LOOKING)
    write_run(tmp_path / "lstm")
    looking, plain = (load_checkpoint(tmp_path / kind) for kind in ("attention", "lstm"))
    for decoder, before in ((SIZES, looking), (LOOKING, plain)):
        kind = before.decoder.config.kind
        with pytest.raises(CheckpointError, match=f"is of the kind {kind}: pass --decoder {kind}, or leave out --from"):
            begin_with(make_decoder(decoder), before, "fingerprint", tmp_path / kind)
    with pytest.raises(CheckpointError, match=r"do not fit .*attention\.gate\.bias"):
        begin_with(make_decoder(replace(LOOKING, value_size=5)), looking, "fingerprint", tmp_path / "attention")


def test_options_that_make_no_sense_are_one_sentence() -> None:
    with pytest.raises(ValueError, match='decoder must be "lstm" or "attention", but it is "gru"'):
        TrainingOptions(decoder="gru")
    with pytest.raises(ValueError, match="value_size must be at least 1"):
        TrainingOptions(decoder="attention", value_size=0)
