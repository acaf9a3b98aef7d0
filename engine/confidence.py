"""How far a caption can be trusted: a logistic model over its words' log-probabilities. Knows no words and no images.

A bundle's manifest holds the coefficients, which `training.calibrate` fits; the features are written down only here.
"""

from collections.abc import Callable, Mapping, Sequence
from math import nan, sqrt, tanh
from types import MappingProxyType
from typing import Any

from engine.validation import is_number

UNCALIBRATED: Mapping[str, float] = MappingProxyType({})

FEATURES: dict[str, Callable[[Sequence[float]], float]] = {
    "mean": lambda log_probs: sum(log_probs) / len(log_probs),
    "per_root_length": lambda log_probs: sum(log_probs) / sqrt(len(log_probs)),
    "first_3": lambda log_probs: sum(log_probs[:3]),
    "least": min,
    "lowest_3": lambda log_probs: sum(sorted(log_probs)[:3]) / min(3, len(log_probs)),
    "length": len,
}
"""What is read off token_log_probs, one number or more: natural logarithms in order, that of the end included."""

OTHERS = ("threshold", "intercept")


def confidence(token_log_probs: Sequence[float], model: Mapping[str, float], *, given: int = 0) -> float:
    """Returns the estimated probability, from 0 to 1, that a caption is good.

        1 / (1 + exp(-(intercept + sum of model[name] * FEATURES[name](token_log_probs[given:]))))

    over the features that the model names. given: words of a prefix, which the model did not choose; how unlikely they
    were says nothing. Good means: its CIDEr against what people wrote of the image reaches model["threshold"]. Among
    many captions with confidence c, a share c is good, as far as images and decoding resemble those of the calibration:
    a caption that min_length made longer is underrated, since words that were forced are unlikely. NaN where the model
    is empty, which says that nobody calibrated the bundle, and where there are no log-probabilities.
    """
    chosen = token_log_probs[given:]
    if not model or not chosen:
        return nan
    odds = model["intercept"] + sum(model[name] * FEATURES[name](chosen) for name in FEATURES if name in model)
    return (1 + tanh(odds / 2)) / 2  # the same function, and it cannot overflow


def confidence_faults(model: Mapping[str, Any]) -> list[str]:
    """Checks what a manifest holds; no coefficients at all are no fault."""
    if not model:
        return []
    unknown, known = sorted(model.keys() - {*OTHERS, *FEATURES}), ", ".join(FEATURES)
    misfits = {name: value for name, value in model.items() if not is_number(value)}
    return [
        *(f"confidence.{name} is missing" for name in OTHERS if name not in model),
        *(f"confidence.{name} is unknown: it is none of {known}" for name in unknown),
        *(f"confidence.{name} is {value!r} and must be a finite number" for name, value in misfits.items()),
    ]
