"""A sentence as services write it in JSON, which has no NaN. Knows no requests and no files."""

from math import isfinite
from typing import Any

from engine import Hypothesis


def sentence(one: Hypothesis) -> dict[str, Any]:
    """Returns a sentence and its numbers, None for each that is NaN or infinite."""
    numbers = {"confidence": one.confidence, "score": one.score, "log_prob": one.log_prob}
    return {"caption": one.text, **{name: number if isfinite(number) else None for name, number in numbers.items()}}
