"""Laws of the logistic fit, on made data whose truth is known."""

import numpy as np
import pytest

from training.confidence.logistic import PENALTY, Logistic, fit, fit_folds, folds_of, held_out


def made(rows: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, Logistic]:
    """Features of very different scales, and labels drawn with the probabilities of a known model."""
    generator = np.random.default_rng(seed)
    truth = Logistic(-0.7, (1.5, -0.02, 0.0))
    features = generator.normal((2, 100, 0), (1, 50, 3), size=(rows, 3))
    return features, generator.random(rows) < truth(features), truth


def test_known_coefficients_are_recovered_from_made_data() -> None:
    features, labels, truth = made(40_000)
    found = fit(features, labels)
    assert found.intercept == pytest.approx(truth.intercept, abs=0.1)
    assert found.weights == pytest.approx(truth.weights, abs=0.05)
    assert found.weights[1] == pytest.approx(truth.weights[1], abs=0.001)


def test_no_step_away_from_the_fit_is_better() -> None:
    features, labels, _ = made(300)
    scaled = (features - features.mean(axis=0)) / features.std(axis=0)
    found = fit(scaled, labels)

    def loss(values: np.ndarray) -> float:
        chances = 1 / (1 + np.exp(-(values[0] + scaled @ values[1:])))
        return float(-np.log(np.where(labels, chances, 1 - chances)).sum() + PENALTY * (values[1:] ** 2).sum() / 2)

    best = np.array([found.intercept, *found.weights])
    steps = [sign * 1e-3 * one for one in np.eye(4) for sign in (1, -1)]
    assert all(loss(best) < loss(best + step) for step in steps)


def test_units_do_not_matter() -> None:
    features, labels, _ = made(500)
    units = np.array([1000, 1e-3, 7])
    assert fit(features * units + 5, labels)(features * units + 5) == pytest.approx(fit(features, labels)(features))


def test_a_feature_that_is_always_the_same_has_no_weight() -> None:
    features, labels, _ = made(200)
    assert fit(np.column_stack([features, np.full(200, 3.0)]), labels).weights[-1] == 0


def test_labels_that_the_features_part_wholly_have_a_finite_fit() -> None:
    features = np.array([[-2.0], [-1.0], [1.0], [2.0]])
    chances = fit(features, features[:, 0] > 0)(features)
    assert (np.diff(chances) > 0).all()
    assert 0 < chances[0] < 0.5 < chances[-1] < 1


@pytest.mark.parametrize("label", [True, False])
def test_labels_of_one_kind_are_refused(label: bool) -> None:
    with pytest.raises(ValueError, match="both kinds"):
        fit(np.zeros((3, 1)), np.full(3, label))


def test_each_fold_has_its_part_of_both_labels() -> None:
    labels = np.arange(103) % 7 == 0
    folds = folds_of(labels, 5, seed=0)
    for part in (labels, ~labels):
        counts = np.bincount(folds[part], minlength=5)
        assert counts.max() - counts.min() <= 1
    assert (folds != folds_of(labels, 5, seed=1)).any()


def test_no_row_is_judged_by_a_model_that_has_seen_its_label() -> None:
    features, labels, _ = made(200)
    folds = folds_of(labels, 5, seed=0)
    flipped = np.where(folds == 2, ~labels, labels)
    before, after = (held_out(fit_folds(features, one, folds), features, folds) for one in (labels, flipped))
    assert (before[folds == 2] == after[folds == 2]).all()
    assert (before[folds != 2] != after[folds != 2]).all()
