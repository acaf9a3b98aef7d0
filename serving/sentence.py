"""A sentence as services write it in JSON, which has no NaN."""

from math import isfinite
from typing import Any

from engine import Hypothesis


def sentence(one: Hypothesis) -> dict[str, Any]:
    """Returns a sentence and its numbers; None for a number that is NaN or infinite."""
    numbers = {"confidence": one.confidence, "score": one.score, "log_prob": one.log_prob}
    return {"caption": one.text, **{name: number if isfinite(number) else None for name, number in numbers.items()}}
