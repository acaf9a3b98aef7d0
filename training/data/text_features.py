"""Features for photographs of which only captions are known, made of the words, so that a decoder learns from text too.

Features of photographs are explained by the words of their captions (ridge regression), and what the words leave
unexplained is taken from a photograph drawn at random. So a sentence stands beside features as vague as an encoder's
would be. The idea of training a captioner on text with noise in the image's place is CapDec's (Nukrai et al. 2022,
arXiv:2211.00575); the regression takes the place of an encoder that knows text. Knows no decoder and no files.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from engine.bundle.vocabulary import Vocabulary, split
from training.data.batches import Captioned, Features
from training.data.examples import DataError

RIDGE = 10.0
"""Penalty on the regression's weights: the best of 3, 10 and 30 on photographs held out (docs/quality.md)."""
AT_ONCE = 4096


@dataclass(frozen=True, slots=True, eq=False)
class TextFeatures:
    """One view of features made of sentences. `matrix` is itself: `matrix[rows]` gives float32 (rows, feature_size)."""

    names: tuple[str, ...]
    means: np.ndarray  # float16 (sentences, feature_size): what the words explain, shared by all views
    residuals: np.ndarray  # float16 (photographs, feature_size): what they leave, of photographs in this view
    drawn: np.ndarray  # int64 (sentences,): whose residual each one gets
    limits: tuple[float, float]  # of real features
    _rows: dict[str, int] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_rows", {name: row for row, name in enumerate(self.names)})

    @property
    def matrix(self) -> Any:
        """Itself."""
        return self

    def row(self, name: str) -> int:
        """Row of a photograph."""
        return self._rows[name]

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        """Returns features of rows, int64 (count,): float32 (count, feature_size)."""
        found = self.means[rows].astype(np.float32) + self.residuals[self.drawn[rows]]
        clipped: np.ndarray = np.clip(found, *self.limits, out=found)
        return clipped


def text_features(
    sentences: Sequence[Captioned],
    described: Sequence[Captioned],
    views: Sequence[Features],
    vocabulary: Vocabulary,
    *,
    seed: int = 0,
) -> tuple[TextFeatures, ...]:
    """Returns as many views of features for sentences as there are `views` of the photographs `described`.

    The same seed gives the same features. Views must hold vectors, float (photographs, feature_size). Raises DataError
    where no photograph has features.
    """
    known = set.intersection(*(set(view.names) for view in views))
    kept = [example for example in described if example.name in known]
    if not kept:
        raise DataError("no photograph has features, so none can be made for sentences")
    seen = [np.asarray(view.matrix[np.array([view.row(each.name) for each in kept])], np.float32) for view in views]
    average = np.mean(seen, axis=0)  # (photographs, feature_size)
    centre = average.mean(axis=0)
    weights = _regress(kept, vocabulary, average - centre)
    explained, means = (
        (centre + _predict(examples, vocabulary, weights)).astype(np.float16) for examples in (kept, sentences)
    )
    limits = float(min(each.min() for each in seen)), float(max(each.max() for each in seen))
    names = tuple(example.name for example in sentences)
    generator = np.random.default_rng(seed)
    return tuple(
        TextFeatures(
            names=names,
            means=means,
            residuals=(each - explained).astype(np.float16),
            drawn=generator.integers(0, len(kept), len(names)),
            limits=limits,
        )
        for each in seen
    )


def _regress(examples: Sequence[Captioned], vocabulary: Vocabulary, features: np.ndarray) -> np.ndarray:
    """Returns ridge regression's weights, float32 (vocabulary, feature_size), of features by the words of captions."""
    products = RIDGE * np.eye(len(vocabulary))
    targets = np.zeros((len(vocabulary), features.shape[1]))
    for rows, shares in _word_shares(examples, vocabulary):
        products += shares.T @ shares
        targets += shares.T @ features[rows]
    return np.linalg.solve(products, targets).astype(np.float32)


def _predict(examples: Sequence[Captioned], vocabulary: Vocabulary, weights: np.ndarray) -> np.ndarray:
    """Returns what words say of features: float32 (examples, feature_size)."""
    return np.concatenate([shares @ weights for _, shares in _word_shares(examples, vocabulary)])


def _word_shares(examples: Sequence[Captioned], vocabulary: Vocabulary) -> Iterator[tuple[slice, np.ndarray]]:
    """Yields the share of each example's captions that hold a word: places, float32 (some examples, vocabulary)."""
    for start in range(0, len(examples), AT_ONCE):
        rows = slice(start, start + AT_ONCE)
        shares = np.zeros((len(examples[rows]), len(vocabulary)), np.float32)
        for row, example in zip(shares, examples[rows], strict=True):
            for word in (word for caption in example.captions for word in set(split(caption))):
                if word in vocabulary.ids:
                    row[vocabulary.ids[word]] += 1 / len(example.captions)
        yield rows, shares
