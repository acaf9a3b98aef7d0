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


def test_known_coefficients_are_recovered_from_made_data() -> None:
    intercept, weights = coefficients(fit(*made(40_000)))
    assert intercept == pytest.approx(INTERCEPT, abs=0.1)
    assert weights == pytest.approx(WEIGHTS, abs=0.05)
    assert weights[1] == pytest.approx(WEIGHTS[1], abs=0.001)


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


def test_labels_that_the_features_part_wholly_have_a_finite_fit() -> None:
    features = np.array([[-2.0], [-1.0], [1.0], [2.0]])
    intercept, weights = coefficients(fit(features, features[:, 0] > 0))
    assert intercept == pytest.approx(0, abs=1e-9)
    assert weights == pytest.approx([0.630904553512105], rel=1e-6)


@pytest.mark.parametrize("label", [True, False])
def test_labels_of_one_kind_are_refused(label: bool) -> None:
    with pytest.raises(ValueError, match="class"):
        fit(np.zeros((3, 1)), np.full(3, label))


def test_each_fold_has_its_part_of_both_labels() -> None:
    labels = np.arange(103) % 7 == 0
    folds = folds_of(labels, 5, seed=0)
    assert sorted(np.concatenate(folds)) == list(range(103))
    for kind in (True, False):
        counts = [int((labels[rows] == kind).sum()) for rows in folds]
        assert max(counts) - min(counts) <= 1
    assert any((one != other).any() for one, other in zip(folds, folds_of(labels, 5, seed=1), strict=True))


def test_no_row_is_measured_by_a_model_that_has_seen_its_label() -> None:
    features, labels = made(200)
    folds = folds_of(labels, 5, seed=0)
    flipped = labels.copy()
    flipped[folds[2]] = ~flipped[folds[2]]
    before, after = (held_out(fit_folds(features, one, folds), features, folds) for one in (labels, flipped))
    same = np.isin(np.arange(200), folds[2])
    assert (before[same] == after[same]).all()
    assert (before[~same] != after[~same]).all()
