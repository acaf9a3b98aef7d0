"""What captioning returns."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import nan


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """One sentence for one image.

    score is log_prob / length ** length_penalty, by which hypotheses are ranked. log_prob is the natural logarithm
    of the sentence's probability under the model, the sum of token_log_probs. tokens are the words and, where the
    sentence is finished, the END token; length counts them. confidence, from 0 to 1, estimates the probability that the
    sentence is as good as people's: engine.confidence says what that means. It follows from token_log_probs, those of a
    prefix left out, and is NaN where the bundle is not calibrated or nobody asked how likely the words are.
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
    """The best hypothesis for an image; `alternatives` holds all that were asked for, best first, itself included.

    Finished sentences stand before unfinished ones.
    """

    alternatives: tuple[Hypothesis, ...]

    @classmethod
    def best_of(cls, hypotheses: Sequence[Hypothesis]) -> "Caption":
        """Makes a caption of hypotheses that are ordered best first."""
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
