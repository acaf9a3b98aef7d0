"""What tests compare captions by."""

import pytest

from engine import Caption


def texts(captions: list[Caption]) -> list[list[str]]:
    return [[other.text for other in caption.alternatives] for caption in captions]


def assert_same(found: list[Caption], expected: list[Caption]) -> None:
    """The same sentences in the same order; numbers may differ by rounding, as sums of other shapes do."""
    for one, other in zip(found, expected, strict=True):
        assert [a.tokens for a in one.alternatives] == [a.tokens for a in other.alternatives]
        for mine, theirs in zip(one.alternatives, other.alternatives, strict=True):
            assert (mine.text, mine.finished) == (theirs.text, theirs.finished)
            assert mine.score == pytest.approx(theirs.score, abs=1e-4)
            assert mine.token_log_probs == pytest.approx(theirs.token_log_probs, abs=1e-4)
