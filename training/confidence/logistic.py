"""Logistic regression of a few features by scikit-learn, and folds to measure it on unseen rows. Knows no captions."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

PENALTY = 1.0  # on squared weights of standardised features, relative to the summed log-likelihood

Array = NDArray[np.float64]
Rows = NDArray[np.int64]


def fit(features: Array, labels: NDArray[np.bool_]) -> Pipeline:
    """Fits features (rows, features), which are standardised, to labels (rows,); the intercept has no penalty.

    Raises ValueError if all labels are the same, because then no finite intercept is best.
    """
    regression = LogisticRegression(C=1 / PENALTY, solver="newton-cholesky", tol=1e-10)
    return make_pipeline(StandardScaler(), regression).fit(features, labels)


def coefficients(model: Pipeline) -> tuple[float, list[float]]:
    """Returns the intercept and the weights of the unstandardised features: (features,)."""
    scaler, regression = model[0], model[-1]
    weights = regression.coef_[0] / scaler.scale_
    return float(regression.intercept_[0] - weights @ scaler.mean_), weights.tolist()


def folds_of(labels: NDArray[np.bool_], folds: int, seed: int) -> list[Rows]:
    """Splits the rows into random folds, stratified by label; returns each fold's rows."""
    dealt = StratifiedKFold(folds, shuffle=True, random_state=seed)
    return [rows for _, rows in dealt.split(labels, labels)]


def fit_folds(features: Array, labels: NDArray[np.bool_], folds: Sequence[Rows]) -> list[Pipeline]:
    """Returns, for each fold, the model fitted to the other folds."""
    return [fit(np.delete(features, rows, axis=0), np.delete(labels, rows)) for rows in folds]


def held_out(models: Sequence[Pipeline], features: Array, folds: Sequence[Rows]) -> Array:
    """Returns each row's probability from the model that has not seen it: (rows,)."""
    chances = np.empty(len(features))
    for model, rows in zip(models, folds, strict=True):
        chances[rows] = model.predict_proba(features[rows])[:, 1]
    return chances
