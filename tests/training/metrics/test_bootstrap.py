"""Intervals and comparisons against resampling by brute force, exact enumeration and textbook cases."""

import itertools
import math
from statistics import NormalDist

import numpy as np
import pytest

from tests.training.scored import make_captions
from training.metrics.bootstrap import compare, confidence_intervals
from training.metrics.counts import ImageCounts
from training.metrics.java import MetricsError
from training.metrics.scores import score_captions


@pytest.fixture(autouse=True)
def no_java(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")


def counts_of(values: np.ndarray, name: str = "CIDEr") -> ImageCounts:
    """Counts whose metric `name` has these values; the other counts mean nothing."""
    names = tuple(str(index) for index in range(len(values)))
    return ImageCounts(names, np.ones((len(values), 10)), None, {name: values.astype(np.float64)})


def make_counts(images: int, seed: int = 0) -> ImageCounts:
    return score_captions(*make_captions(images, seed)).counts


def bleu_of(references: dict[str, list[str]], captions: dict[str, str], drawn: list[str]) -> list[float]:
    from pycocoevalcap.bleu.bleu import Bleu

    truths = {str(place): references[name] for place, name in enumerate(drawn)}
    guesses = {str(place): [captions[name]] for place, name in enumerate(drawn)}
    scores: list[float] = Bleu(4).compute_score(truths, guesses, verbose=0)[0]
    return scores


def test_a_resamples_bleu_is_that_of_the_drawn_captions_scored_again() -> None:
    references, captions = make_captions(9)
    counts = make_counts(9)
    generator = np.random.default_rng(1)
    for _ in range(20):
        drawn = generator.integers(9, size=9)
        sums = np.bincount(drawn, minlength=9) @ counts.table()
        found = counts.score(sums)
        brute = bleu_of(references, captions, [list(captions)[place] for place in drawn])
        assert [found[f"BLEU-{n}"] for n in (1, 2, 3, 4)] == pytest.approx(brute, rel=0, abs=1e-12)


def test_intervals_are_those_of_all_resamples_that_there_are() -> None:
    references, captions = make_captions(4, seed=3)
    counts = make_counts(4, seed=3)
    cider = counts.means["CIDEr"]
    draws = list(itertools.product(range(4), repeat=4))  # 256, all as likely as each other
    every = {
        "BLEU-2": np.array([bleu_of(references, captions, [list(captions)[i] for i in draw])[1] for draw in draws]),
        "CIDEr": np.array([cider[list(draw)].mean() for draw in draws]),
    }
    found = confidence_intervals(counts, resamples=20_000)
    for metric, values in every.items():
        low, high = np.quantile(values, [0.02, 0.03]), np.quantile(values, [0.97, 0.98])
        assert low[0] - 1e-9 <= found[metric].low <= low[1] + 1e-9
        assert high[0] - 1e-9 <= found[metric].high <= high[1] + 1e-9


def test_the_interval_of_a_mean_is_the_textbooks() -> None:
    values = np.random.default_rng(0).normal(0.5, 0.2, size=900)
    error = 1.96 * values.std() / math.sqrt(900)
    interval = confidence_intervals(counts_of(values))["CIDEr"]
    assert interval.low == pytest.approx(values.mean() - error, abs=error / 20)
    assert interval.high == pytest.approx(values.mean() + error, abs=error / 20)


def test_a_higher_level_is_wider_and_a_seed_decides() -> None:
    counts = make_counts(30)
    usual, same = confidence_intervals(counts, resamples=500), confidence_intervals(counts, resamples=500)
    wide = confidence_intervals(counts, resamples=500, level=0.99)
    assert usual == same != confidence_intervals(counts, resamples=500, seed=1)
    for metric, value in counts.corpus().items():
        assert wide[metric].low <= usual[metric].low <= value <= usual[metric].high <= wide[metric].high


def test_many_images_are_resampled_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    counts = make_counts(30)
    whole = confidence_intervals(counts)
    monkeypatch.setattr("training.metrics.bootstrap.BLOCK", 70)
    for metric, interval in confidence_intervals(counts).items():
        width = whole[metric].high - whole[metric].low
        assert (interval.low, interval.high) == pytest.approx((whole[metric].low, whole[metric].high), abs=width / 20)


def test_what_is_better_on_every_image_by_the_same_is_surely_better() -> None:
    values = np.random.default_rng(0).random(50)
    found = compare(counts_of(values), counts_of(values + 0.125), resamples=999)["CIDEr"]
    assert found.change == pytest.approx(0.125)
    assert (found.interval.low, found.interval.high) == pytest.approx((0.125, 0.125))
    assert found.p == 1 / 1000


@pytest.mark.parametrize("wanted", [0.02, 0.2, 0.8])
def test_p_is_that_of_the_paired_z_test(wanted: float) -> None:
    generator = np.random.default_rng(5)
    first, noise = generator.random(2000), generator.normal(0, 0.1, 2000)
    z = NormalDist().inv_cdf(1 - wanted / 2)
    changes = noise - noise.mean() + z * noise.std() / math.sqrt(2000)
    found = compare(counts_of(first), counts_of(first + changes), resamples=5000)["CIDEr"]
    assert found.p == pytest.approx(wanted, abs=0.02)
    assert (found.interval.low > 0) == (wanted < 0.05)


def test_a_comparison_turned_round_has_the_other_sign_and_the_same_p() -> None:
    first, second = make_counts(40, seed=0), make_counts(40, seed=1)
    there, back = compare(first, second, resamples=2000), compare(second, first, resamples=2000)
    for metric, found in there.items():
        assert back[metric].change == -found.change
        turned = (-found.interval.high, -found.interval.low)
        assert (back[metric].interval.low, back[metric].interval.high) == pytest.approx(turned, abs=1e-9)
        assert back[metric].p == pytest.approx(found.p, abs=1e-3)  # ties may fall either way by rounding


def test_only_what_both_have_is_compared() -> None:
    values = np.linspace(0, 1, 10)
    assert "CIDEr" not in compare(counts_of(values), counts_of(values, "ROUGE-L"), resamples=10)


def test_other_images_cannot_be_compared() -> None:
    with pytest.raises(MetricsError, match="both need the same images"):
        compare(make_counts(3), make_counts(4))
