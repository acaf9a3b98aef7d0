"""The proof that both sides give the same is one: it fails for a model that is only similar."""

import numpy as np
import pytest

from benchmarks.baseline import CHUNKS
from benchmarks.pairs import WORKS, Sides
from benchmarks.restore import restore_decoder


@pytest.mark.parametrize("work", sorted(WORKS.keys() - {"image decoding", "encoder"}))
def test_other_weights_are_noticed(sides: Sides, work: str, monkeypatch: pytest.MonkeyPatch) -> None:
    other = restore_decoder(sides.captioner.bundle)
    other.initial.weight.mul_(0.8)
    other.output.bias.mul_(0.5)
    monkeypatch.setattr(sides.baseline, "decoder", other)
    with pytest.raises(AssertionError):
        sides.pair(work, 8)


def test_another_picture_is_noticed(sides: Sides, monkeypatch: pytest.MonkeyPatch) -> None:
    negative = 255 - sides.pixels
    monkeypatch.setattr(sides.baseline, "pixels", lambda files: negative[: len(files)])
    for work in ("image decoding", "end to end"):
        with pytest.raises(AssertionError):
            sides.pair(work, 1)


def test_features_are_the_same_in_any_chunks(sides: Sides) -> None:
    pixels, baseline = sides.pixels[:5], sides.baseline
    whole = baseline.encode_in_chunks(pixels, 5).numpy()
    np.testing.assert_allclose(baseline.encode_in_chunks(pixels, 2).numpy(), whole, rtol=0, atol=1e-4)
    assert baseline.chunk in CHUNKS
