"""Laws of the logistic fit, on made data whose truth is known."""

import numpy as np
import pytest

from training.confidence.logistic import coefficients, fit, fit_folds, folds_of, held_out

INTERCEPT, WEIGHTS = -0.7, np.array([1.5, -0.02, 0.0])


def made(rows: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Features of very different scales, and labels drawn with the probabilities of a known model."""
    generator = np.random.default_rng(seed)
    features = generator.normal((2, 100, 0), (1, 50, 3), size=(rows, 3))
    return features, generator.random(rows) < 1 / (1 + np.exp(-(INTERCEPT + features @ WEIGHTS)))


def test_the_fit_is_the_one_that_bundles_were_calibrated_by() -> None:
    """The figures are of the Newton method of an earlier version, run to its end."""
    intercept, weights = coefficients(fit(*made(500)))
    assert intercept == pytest.approx(0.02987988666318503, rel=1e-6)
    assert weights == pytest.approx([1.3109679636887166, -0.0200505691102332, -0.016575760956933704], rel=1e-6)


def test_coefficients_are_of_the_features_as_they_are() -> None:
    features, labels = made(500)
    model = fit(features, labels)
    intercept, weights = coefficients(model)
    chances = 1 / (1 + np.exp(-(intercept + features @ np.array(weights))))
    assert model.predict_proba(features)[:, 1] == pytest.approx(chances)
    units = np.array([1000, 1e-3, 7])
    assert coefficients(fit(features * units, labels))[1] * units == pytest.approx(weights)


def test_no_row_is_measured_by_a_model_that_has_seen_its_label() -> None:
    features, labels = made(200)
    folds = folds_of(labels, 5, seed=0)
    flipped = labels.copy()
    flipped[folds[2]] = ~flipped[folds[2]]
    before, after = (held_out(fit_folds(features, one, folds), features, folds) for one in (labels, flipped))
    same = np.isin(np.arange(200), folds[2])
    assert (before[same] == after[same]).all()
    assert (before[~same] != after[~same]).all()
