"""What captioning returns."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import nan

import numpy as np


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """One sentence for one image.

    score is log_prob / length ** length_penalty; hypotheses are ranked by it. log_prob is the natural logarithm
    of the sentence's probability under the model, the sum of token_log_probs. tokens are the words and, if the
    sentence is finished, the END token; length counts them. confidence, from 0 to 1, estimates the probability that the
    sentence is good, as engine.confidence defines it. It is computed from token_log_probs without those of a prefix,
    and is NaN if the bundle is not calibrated or log-probabilities were not asked for.
    """

    text: str
    score: float
    log_prob: float
    tokens: tuple[str, ...]
    token_log_probs: tuple[float, ...]
    finished: bool
    confidence: float = field(default=nan, kw_only=True, compare=False)


@dataclass(frozen=True, slots=True)
class Caption(Hypothesis):
    """The best hypothesis for an image; `alternatives` has all that were asked for, best first, including this one.

    Finished sentences come before unfinished ones. attention: if asked for, where the model looked for each word,
    float32 (words, height, width); each word's map sums to 1, and its cells divide the image as the model saw it.
    features: if asked for, what Captioner.encode returns for the image, float32 (*feature_shape).
    """

    alternatives: tuple[Hypothesis, ...]
    attention: np.ndarray | None = field(default=None, kw_only=True, compare=False, repr=False)
    features: np.ndarray | None = field(default=None, kw_only=True, compare=False, repr=False)

    @classmethod
    def best_of(cls, hypotheses: Sequence[Hypothesis]) -> "Caption":
        """Makes a caption from hypotheses, best first."""
        best = hypotheses[0]
        return cls(
            best.text,
            best.score,
            best.log_prob,
            best.tokens,
            best.token_log_probs,
            best.finished,
            tuple(hypotheses),
            confidence=best.confidence,
        )
