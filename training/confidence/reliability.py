"""Measures a confidence: does it rank captions as their scores do, and is it right as often as it claims?

Knows two arrays with one number per caption, confidence and CIDEr, and the threshold for a good caption.
"""

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest, norm, spearmanr
from sklearn.metrics import roc_auc_score

BINS, RESAMPLES, LEVEL = 10, 1000, 0.95
LEAST = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Bin:
    """A bin of captions with similar confidence: their means, with 95% intervals."""

    captions: int
    confidence: float
    good: float  # share
    good_interval: tuple[float, float]
    cider: float
    cider_interval: tuple[float, float]


@dataclass(frozen=True, slots=True)
class Kept:
    """The captions above a threshold of the confidence."""

    least: float
    share: float
    good: float
    cider: float


@dataclass(frozen=True, slots=True)
class Reliability:
    """rank_correlation is Spearman's, of confidence and CIDEr. area, under the ROC curve, is the probability that of a
    good and another caption the good one has the higher confidence. calibration_error is the mean distance between
    confidence and share of good captions over the bins; by_chance is its value for an exactly right confidence, which
    the small number of captions causes.
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
    """Measures confidences against CIDEr, both (captions,); figures that are undefined are NaN."""
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


def rank_correlation(first: Array, second: Array) -> float:
    """Returns Spearman's rank correlation; NaN if all values of one side are equal."""
    return float(spearmanr(first, second).statistic) if np.ptp(first) and np.ptp(second) else math.nan


def area(confidences: Array, good: NDArray[np.bool_]) -> float:
    """Returns the area under the ROC curve, ties count half; NaN if all captions are good, or none is."""
    return float(roc_auc_score(good, confidences)) if good.any() and not good.all() else math.nan


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
    captions, mean = len(good), float(ciders.mean())
    reach = float(norm.ppf((1 + LEVEL) / 2) * ciders.std() / np.sqrt(captions))
    shares = binomtest(int(good.sum()), captions).proportion_ci(LEVEL, method="wilson")
    return Bin(
        captions=captions,
        confidence=float(confidences.mean()),
        good=float(good.mean()),
        good_interval=(float(shares.low), float(shares.high)),
        cider=mean,
        cider_interval=(mean - reach, mean + reach),
    )


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
