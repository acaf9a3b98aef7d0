"""How far a caption can be trusted: a logistic model of its tokens' log-probabilities. Knows no words or images.

The coefficients are in a bundle's manifest; `training.calibrate` fits them. The features are defined only here.
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
"""Features of token_log_probs, which are natural logarithms, in order, at least one, END included."""

OTHERS = ("threshold", "intercept")


def confidence(token_log_probs: Sequence[float], model: Mapping[str, float], *, given: int = 0) -> float:
    """Returns the estimated probability, from 0 to 1, that a caption is good.

        1 / (1 + exp(-(intercept + sum of model[name] * FEATURES[name](token_log_probs[given:]))))

    summed over the features in the model. given: number of prefix words, which are left out because the model did not
    choose them. A caption is good if its CIDEr against people's captions of the image reaches model["threshold"].
    Among many captions with confidence c, a share c is good, provided that images and decoding resemble those of the
    calibration: a caption that min_length made longer is underrated, since forced words are unlikely. Returns NaN if
    the model is empty, because the bundle was not calibrated, or if there are no log-probabilities.
    """
    chosen = token_log_probs[given:]
    if not model or not chosen:
        return nan
    odds = model["intercept"] + sum(model[name] * FEATURES[name](chosen) for name in FEATURES if name in model)
    return (1 + tanh(odds / 2)) / 2  # the same function, without overflow


def check_confidence(model: Mapping[str, Any]) -> list[str]:
    """Checks the coefficients in a manifest; having none at all is allowed."""
    if not model:
        return []
    unknown, known = sorted(model.keys() - {*OTHERS, *FEATURES}), ", ".join(FEATURES)
    misfits = {name: value for name, value in model.items() if not is_number(value)}
    return [
        *(f"confidence.{name} is missing" for name in OTHERS if name not in model),
        *(f"confidence.{name} is unknown; the features are {known}" for name in unknown),
        *(f"confidence.{name} is {value!r} and must be a finite number" for name, value in misfits.items()),
    ]
