"""Laws of the decoder."""

from dataclasses import replace

import pytest
import torch

from training.models.decoder import CaptionDecoder, DecoderConfig

SMALL = DecoderConfig(9, 23, pad_id=2, bottleneck=5, units=12, embedding=7, logit_hidden=7)


def make(config: DecoderConfig) -> CaptionDecoder:
    torch.manual_seed(0)
    return CaptionDecoder(config)


@pytest.mark.parametrize("tied", [False, True])
def test_forward_over_a_sequence_equals_steps_one_by_one(tied: bool) -> None:
    decoder = make(replace(SMALL, tied=tied, dropout=0.5)).eval()
    features, ids = torch.randn(4, 9), torch.randint(0, 23, (4, 11))
    with torch.no_grad():
        whole = decoder(features, ids)  # (4, 11, 23)
        state, context = decoder.start(features)
        for position in range(ids.shape[1]):
            logits, state = decoder.step(ids[:, position], state, context)
            torch.testing.assert_close(logits, whole[:, position], atol=1e-5, rtol=1e-5)


def test_kept_positions_are_those_of_the_whole_sequence() -> None:
    decoder = make(SMALL)
    features, ids = torch.randn(3, 9), torch.randint(0, 23, (3, 6))
    keep = torch.rand(3, 6) < 0.5
    torch.testing.assert_close(decoder(features, ids, keep), decoder(features, ids)[keep])


def test_hidden_and_cell_start_equal() -> None:
    (hidden, cell), context = make(SMALL).start(torch.randn(2, 9))
    assert context == ()
    assert hidden.shape == (2, 12)
    assert torch.equal(hidden, cell)


def test_padding_is_embedded_as_nothing_and_never_learnt() -> None:
    decoder = make(SMALL)
    assert not decoder.embedding.weight[2].any()
    decoder(torch.randn(2, 9), torch.full((2, 3), 2)).sum().backward()
    assert decoder.embedding.weight.grad is not None
    assert not decoder.embedding.weight.grad.any()


def test_dropout_changes_training_and_not_evaluation() -> None:
    decoder = make(replace(SMALL, dropout=0.5))
    features, ids = torch.randn(2, 9), torch.ones(2, 3, dtype=torch.long)
    assert not torch.equal(decoder(features, ids), decoder(features, ids))
    decoder.eval()
    assert torch.equal(decoder(features, ids), decoder(features, ids))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"tied": True, "logit_hidden": 8},
            "tied embeddings need logit_hidden equal to embedding, but they are 8 and 7",
        ),
        ({"units": 0}, "units must be at least 1"),
        ({"dropout": 1.0}, "dropout must be"),
        ({"pad_id": 23}, "pad_id must be"),
    ],
)
def test_a_size_that_makes_no_sense_is_named(changes: dict[str, int], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        replace(SMALL, **changes)  # type: ignore[arg-type]
