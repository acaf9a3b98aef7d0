"""Laws of the figures that say what a confidence is worth."""

import numpy as np
import pytest

from training.confidence import reliability
from training.confidence.reliability import calibration_error, measure
from training.reports.reliability_chart import draw_reliability

THRESHOLD = 0.6


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reliability, "RESAMPLES", 200)


def made(rows: int, seed: int = 0, shift: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Confidences, and CIDEr that reaches the threshold as often as they say, `shift` apart."""
    generator = np.random.default_rng(seed)
    confidences = generator.uniform(0.05, 0.7, rows)
    good = generator.random(rows) < confidences + shift
    return confidences, np.where(good, 0.6 + confidences, 0.5 * confidences)


def test_the_calibration_error_is_the_distance_of_what_is_said_from_what_is() -> None:
    confidences = np.repeat(np.arange(10) / 10, 10)  # a bin each
    good = np.arange(100) % 10 < np.repeat(np.arange(10), 10)
    assert calibration_error(confidences, good) == pytest.approx(0)
    assert calibration_error(np.minimum(confidences + 0.05, 1), good) == pytest.approx(0.05)


def test_a_right_confidence_errs_no_more_than_chance_does_and_a_wrong_one_more() -> None:
    right, wrong = (measure(*made(2000, shift=shift), THRESHOLD) for shift in (0, 0.2))
    assert right.calibration_error < 2 * right.by_chance
    assert wrong.calibration_error == pytest.approx(0.2, abs=0.03)
    assert wrong.calibration_error > 4 * wrong.by_chance


def test_the_bins_hold_all_captions_in_order_of_confidence() -> None:
    confidences, ciders = made(503)
    found = measure(confidences, ciders, THRESHOLD)
    assert sum(part.captions for part in found.bins) == 503
    assert all(one.confidence < other.confidence for one, other in zip(found.bins, found.bins[1:], strict=False))
    assert sum(part.captions * part.cider for part in found.bins) == pytest.approx(ciders.sum())
    for part in found.bins:
        assert part.good_interval[0] <= part.good <= part.good_interval[1]
        assert part.cider_interval[0] <= part.cider <= part.cider_interval[1]


def test_a_threshold_keeps_exactly_those_at_or_above() -> None:
    found = measure(np.array([0.1, 0.3, 0.3, 0.5]), np.array([0.0, 0.2, 0.9, 1.0]), THRESHOLD)
    assert {one.least: (one.share, one.good, round(one.cider, 3)) for one in found.kept} == {
        0.0: (1.0, 0.5, 0.525),
        0.1: (1.0, 0.5, 0.525),
        0.2: (0.75, 2 / 3, 0.7),
        0.3: (0.75, 2 / 3, 0.7),
        0.4: (0.25, 1.0, 1.0),
        0.5: (0.25, 1.0, 1.0),
    }


def test_what_is_kept_grows_fewer_and_better_where_the_confidence_is_right() -> None:
    found = measure(*made(3000), THRESHOLD)
    assert [one.least for one in found.kept] == [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6]
    assert found.kept[0].share == 1.0
    assert found.kept[0].cider == pytest.approx(found.cider)
    for one, other in zip(found.kept, found.kept[1:], strict=False):
        assert one.share > other.share
        assert one.cider < other.cider


def test_the_interval_of_the_rank_correlation_holds_it_and_narrows_with_more_captions() -> None:
    few, many = measure(*made(100), THRESHOLD), measure(*made(3000), THRESHOLD)
    for found in (few, many):
        assert found.rank_interval[0] < found.rank_correlation < found.rank_interval[1]
    assert np.diff(many.rank_interval) < np.diff(few.rank_interval) / 3


def test_a_figure_without_meaning_is_null_in_the_record() -> None:
    record = measure(np.full(20, 0.4), np.ones(20), THRESHOLD).record()
    assert (record["rank_correlation"], record["area"], record["good"]) == (None, None, 1.0)
    assert len(record["bins"]) == 10


def test_the_plot_is_a_picture_of_any_confidence() -> None:
    for confidences, ciders in (made(3), (np.full(20, 0.4), np.ones(20))):
        found = measure(confidences, ciders, THRESHOLD)
        alone, apart = (draw_reliability("made", THRESHOLD, found, sets) for sets in ({}, {"one": found, "two": found}))
        assert alone.startswith(b"\x89PNG")
        assert apart.startswith(b"\x89PNG")
        assert alone != apart
