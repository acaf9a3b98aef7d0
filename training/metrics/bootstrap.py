"""Bootstrap over images: confidence intervals and paired comparisons. Knows only counts.

The images are resampled with replacement, and every score is computed again on each resample (Efron
and Tibshirani 1993, chapter 13: the percentile interval). BLEU and METEOR are scores of a whole corpus, so what is
drawn is each image's counts, which are summed before the score is formed (Koehn 2004, "Statistical significance tests
for machine translation evaluation"). CIDEr and ROUGE-L are means over images; CIDEr's document frequencies stay
those of the whole set, so that an image's CIDEr does not depend on which others were drawn.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from training.metrics.counts import ImageCounts, Rows
from training.metrics.java import MetricsError

RESAMPLES, LEVEL = 10_000, 0.95
BLOCK = 4_000_000  # weights at once


@dataclass(frozen=True, slots=True)
class Interval:
    """The range of a score in the middle share `level` of the resamples."""

    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Difference:
    """A metric of two runs on the same images; `p` is two-sided."""

    first: float
    second: float
    interval: Interval
    p: float

    @property
    def change(self) -> float:
        """Second minus first."""
        return self.second - self.first


def confidence_intervals(
    counts: ImageCounts, *, resamples: int = RESAMPLES, level: float = LEVEL, seed: int = 0
) -> dict[str, Interval]:
    """Returns the percentile interval of each metric. The same seed gives the same intervals."""
    table = counts.table()
    drawn = [counts.score(weights @ table) for weights in _weights(len(table), resamples, seed)]
    return {name: _interval(np.concatenate([scores[name] for scores in drawn]), level) for name in drawn[0]}


def compare(
    first: ImageCounts, second: ImageCounts, *, resamples: int = RESAMPLES, level: float = LEVEL, seed: int = 0
) -> dict[str, Difference]:
    """Compares two runs on the same images, metric by metric; each resample draws the same images for both.

    p is the share of resamples whose difference lies at least as far from the resamples' mean difference as the
    observed one from zero, the observed one counted among them: the shift method of Riezler and Maxwell 2005, as in
    sacreBLEU. Raises MetricsError if the images differ or the runs have no metric in common.
    """
    if first.images != second.images:
        raise MetricsError("runs are compared image by image, so both need the same images in the same order")
    tables = first.table(), second.table()
    changes: dict[str, list[Rows]] = {}
    for weights in _weights(len(first.images), resamples, seed):
        before, after = first.score(weights @ tables[0]), second.score(weights @ tables[1])
        for name in before.keys() & after.keys():
            changes.setdefault(name, []).append(after[name] - before[name])
    whole = first.corpus(), second.corpus()
    return {
        name: _difference(whole[0][name], whole[1][name], np.concatenate(changes[name]), level)
        for name in whole[0]
        if name in changes
    }


def _difference(first: float, second: float, changes: Rows, level: float) -> Difference:
    # Rounding may separate equal values, such as the changes of two runs that differ by a constant.
    least = abs(second - first) - 1e-12
    beyond = int((np.abs(changes - changes.mean()) >= least).sum())
    return Difference(first, second, _interval(changes, level), (beyond + 1) / (len(changes) + 1))


def _interval(values: Rows, level: float) -> Interval:
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high))


def _weights(images: int, resamples: int, seed: int) -> Iterator[Rows]:
    """Yields how often each image is drawn in each resample, in blocks: float64 (some resamples, images)."""
    generator = np.random.default_rng(seed)
    block = max(1, BLOCK // images)
    for start in range(0, resamples, block):
        count = min(block, resamples - start)
        drawn = generator.integers(images, size=(count, images)) + images * np.arange(count)[:, None]
        yield np.bincount(drawn.ravel(), minlength=count * images).reshape(count, images).astype(np.float64)
