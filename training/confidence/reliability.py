"""What a confidence is worth: does it order captions as their scores do, and is it as often right as it says?

Knows two arrays of one number a caption, confidence and CIDEr, and the threshold from which a caption is good.
"""

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

BINS, RESAMPLES, LEVEL = 10, 1000, 0.95
Z = 1.959964  # of a normal distribution, LEVEL lies within so many deviations of the mean
LEAST = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Bin:
    """Captions of neighbouring confidences: their means, with intervals of 95%."""

    captions: int
    confidence: float
    good: float  # share
    good_interval: tuple[float, float]
    cider: float
    cider_interval: tuple[float, float]


@dataclass(frozen=True, slots=True)
class Kept:
    """What a threshold on the confidence leaves."""

    least: float
    share: float
    good: float
    cider: float


@dataclass(frozen=True, slots=True)
class Reliability:
    """rank_correlation is Spearman's, of confidence and CIDEr; area, that under the ROC curve, is the probability that
    of a good and another caption the good one has the higher confidence. calibration_error is the mean distance between
    confidence and share of good captions over the bins; by_chance is what it comes to where the confidence is exactly
    right, as so few captions vary.
    """

    captions: int
    cider: float
    good: float
    confidence: float
    rank_correlation: float
    rank_interval: tuple[float, float]
    area: float
    calibration_error: float
    by_chance: float
    log_loss: float
    bins: tuple[Bin, ...]
    kept: tuple[Kept, ...]

    def record(self) -> dict[str, Any]:
        """Returns plain JSON values, to four digits; NaN becomes null."""
        return {name: _rounded(value) for name, value in asdict(self).items()}


def measure(confidences: Array, ciders: Array, threshold: float, *, seed: int = 0) -> Reliability:
    """Measures confidences against CIDEr, both (captions,); NaN where a figure has no meaning."""
    good = ciders >= threshold
    generator = np.random.default_rng(seed)
    bins = tuple(_bin(confidences[part], ciders[part], good[part]) for part in _parts(confidences) if len(part))
    drawn = [generator.integers(len(ciders), size=len(ciders)) for _ in range(RESAMPLES)]
    correlations = [rank_correlation(confidences[rows], ciders[rows]) for rows in drawn]
    low, high = np.quantile(correlations, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    chances = generator.random((200, len(good))) < confidences  # (draws, captions)
    safe = np.clip(confidences, 1e-12, 1 - 1e-12)
    return Reliability(
        captions=len(ciders),
        cider=float(ciders.mean()),
        good=float(good.mean()),
        confidence=float(confidences.mean()),
        rank_correlation=rank_correlation(confidences, ciders),
        rank_interval=(float(low), float(high)),
        area=area(confidences, good),
        calibration_error=float(calibration_error(confidences, good)),
        by_chance=float(calibration_error(confidences, chances).mean()),
        log_loss=float(-np.log(np.where(good, safe, 1 - safe)).mean()),
        bins=bins,
        kept=tuple(_kept(least, confidences, ciders, good) for least in LEAST if (confidences >= least).any()),
    )


def ranks(values: Array) -> Array:
    """Returns each value's rank from 1, the mean rank for equal ones: (values,)."""
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    return np.asarray((np.cumsum(counts) - (counts - 1) / 2)[places])


def rank_correlation(first: Array, second: Array) -> float:
    """Returns Spearman's rank correlation; NaN where all values of a side are equal."""
    one, other = ranks(first), ranks(second)
    one, other = one - one.mean(), other - other.mean()
    size = float(np.sqrt((one @ one) * (other @ other)))
    return float(one @ other) / size if size else float("nan")


def area(confidences: Array, good: NDArray[np.bool_]) -> float:
    """Returns the area under the ROC curve, a tie counting half; NaN where all captions are of one kind."""
    many, rest = int(good.sum()), int((~good).sum())
    if not many or not rest:
        return float("nan")
    return float((ranks(confidences)[good].sum() - many * (many + 1) / 2) / (many * rest))


def calibration_error(confidences: Array, good: NDArray[np.bool_]) -> Array:
    """Returns the mean distance between confidence and share of good captions, over bins of equally many captions.

    good may hold several rows of captions, for as many results: (..., captions) -> (...).
    """
    parts = _parts(confidences)
    distances = [np.abs(confidences[part].sum() - good[..., part].sum(axis=-1)) for part in parts]
    return np.asarray(np.sum(distances, axis=0) / len(confidences))


def _parts(confidences: Array) -> list[NDArray[np.int64]]:
    return np.array_split(np.argsort(confidences, kind="stable"), BINS)


def _bin(confidences: Array, ciders: Array, good: NDArray[np.bool_]) -> Bin:
    captions, share, mean = len(good), float(good.mean()), float(ciders.mean())
    reach = Z * float(ciders.std()) / np.sqrt(captions)
    return Bin(captions, float(confidences.mean()), share, wilson(share, captions), mean, (mean - reach, mean + reach))


def wilson(share: float, count: int) -> tuple[float, float]:
    """Returns the interval of a share seen in `count` trials (Wilson 1927)."""
    centre = (share + Z**2 / (2 * count)) / (1 + Z**2 / count)
    reach = Z / (1 + Z**2 / count) * float(np.sqrt(share * (1 - share) / count + Z**2 / (4 * count**2)))
    return min(share, max(0.0, centre - reach)), max(share, min(1.0, centre + reach))  # rounding may leave it outside


def _kept(least: float, confidences: Array, ciders: Array, good: NDArray[np.bool_]) -> Kept:
    stay = confidences >= least
    return Kept(least, float(stay.mean()), float(good[stay].mean()), float(ciders[stay].mean()))


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _rounded(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(one) for one in value]
    if isinstance(value, float):
        return None if math.isnan(value) else round(value, 4)
    return value
