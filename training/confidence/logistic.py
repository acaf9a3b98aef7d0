"""Logistic regression of a few features: fitting, and folds to measure a fit on unseen rows. Knows no captions.

The fit is Newton's method on the penalised log-likelihood (Hastie, Tibshirani and Friedman 2009, section 4.4.1).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

PENALTY = 1.0  # of the squared weights of standardised features, against the sum of the log-likelihoods
ROUNDS, HALVINGS, ENOUGH = 50, 30, 1e-10

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Logistic:
    """The probability 1 / (1 + exp(-(intercept + features @ weights))); weights are (features,)."""

    intercept: float
    weights: tuple[float, ...]

    def __call__(self, features: Array) -> Array:
        """Returns the probability of each row: (rows, features) -> (rows,)."""
        return np.asarray((1 + np.tanh((self.intercept + features @ np.array(self.weights)) / 2)) / 2)


def fit(features: Array, labels: NDArray[np.bool_], penalty: float = PENALTY) -> Logistic:
    """Fits features (rows, features), standardised within, to labels (rows,); the intercept bears no penalty.

    Raises ValueError where all labels are the same, so that no finite intercept is best.
    """
    if labels.all() or not labels.any():
        raise ValueError("a logistic model needs rows of both kinds")
    means, spreads = features.mean(axis=0), features.std(axis=0)
    spreads = np.where(spreads > 0, spreads, 1)
    rows = np.column_stack([np.ones(len(features)), (features - means) / spreads])  # (rows, 1 + features)
    ridge = np.diag([0.0, *[penalty] * features.shape[1]])
    signs = np.where(labels, 1.0, -1.0)

    def loss(values: Array) -> float:
        return float(np.logaddexp(0, -signs * (rows @ values)).sum() + values @ ridge @ values / 2)

    values = np.zeros(rows.shape[1])
    for _ in range(ROUNDS):
        chances = (1 + np.tanh(rows @ values / 2)) / 2  # (rows,)
        gradient = rows.T @ (chances - labels) + ridge @ values
        curvature = rows.T @ (rows * (chances * (1 - chances))[:, None]) + ridge
        step = np.linalg.solve(curvature + ENOUGH * np.eye(len(values)), gradient)
        for _ in range(HALVINGS):  # far from the optimum a whole step may lead away from it
            if loss(values - step) <= loss(values):
                break
            step /= 2
        values = values - step
        if np.abs(step).max() < ENOUGH:
            break
    weights = values[1:] / spreads
    return Logistic(float(values[0] - weights @ means), tuple(weights.tolist()))


def folds_of(labels: NDArray[np.bool_], folds: int, seed: int) -> NDArray[np.int64]:
    """Deals the rows to folds by chance, each fold getting its part of both labels: (rows,)."""
    order = np.random.default_rng(seed).permutation(len(labels))
    order = order[np.argsort(labels[order], kind="stable")]
    dealt = np.empty(len(labels), np.int64)
    dealt[order] = np.arange(len(labels)) % folds
    return dealt


def fit_folds(features: Array, labels: NDArray[np.bool_], folds: NDArray[np.int64]) -> list[Logistic]:
    """Returns for each fold the model that was fitted to the others."""
    return [fit(features[folds != fold], labels[folds != fold]) for fold in range(folds.max() + 1)]


def held_out(models: Sequence[Logistic], features: Array, folds: NDArray[np.int64]) -> Array:
    """Returns each row's probability by the model that has not seen it: (rows,)."""
    chances = np.empty(len(features))
    for fold, model in enumerate(models):
        chances[folds == fold] = model(features[folds == fold])
    return chances
