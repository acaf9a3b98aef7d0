"""Features for photographs of which only captions are known, made of the words, so that a decoder learns from text too.

Features of photographs are explained by the words of their captions (ridge regression), and what the words leave
unexplained is taken from a photograph drawn at random. So a sentence stands beside features as vague as an encoder's
would be. The idea of training a captioner on text with noise in the image's place is CapDec's (Nukrai et al. 2022,
arXiv:2211.00575); the regression takes the place of an encoder that knows text. Knows no decoder and no files.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from engine.bundle.vocabulary import Vocabulary, split
from training.data.batches import Captioned, Features

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

    The same seed gives the same features. Views must hold vectors, float (photographs, feature_size).
    """
    known = set.intersection(*(set(view.names) for view in views))
    kept = [example for example in described if example.name in known]
    rows = [np.array([view.row(example.name) for example in kept]) for view in views]
    seen = [np.asarray(view.matrix[own], np.float32) for view, own in zip(views, rows, strict=True)]
    average = np.mean(seen, axis=0)  # (photographs, feature_size)
    centre = average.mean(axis=0)
    weights, explained = _regress(list(_word_shares(kept, vocabulary)), average - centre)
    shares = list(_word_shares(sentences, vocabulary))
    means = np.concatenate([centre + part @ weights for part in shares]).astype(np.float16)
    limits = float(min(each.min() for each in seen)), float(max(each.max() for each in seen))
    names = tuple(example.name for example in sentences)
    generator = np.random.default_rng(seed)
    return tuple(
        TextFeatures(
            names=names,
            means=means,
            residuals=(each - centre - explained).astype(np.float16),
            drawn=generator.integers(0, len(kept), len(names)),
            limits=limits,
        )
        for each in seen
    )


def _word_shares(examples: Sequence[Captioned], vocabulary: Vocabulary) -> Iterator[np.ndarray]:
    """Yields the share of each example's captions that hold a word: float32 (some examples, vocabulary)."""
    for start in range(0, len(examples), AT_ONCE):
        part = examples[start : start + AT_ONCE]
        shares = np.zeros((len(part), len(vocabulary)), np.float32)
        for row, example in enumerate(part):
            held = Counter(word for caption in example.captions for word in set(split(caption)))
            for word, count in held.items():
                if word in vocabulary.ids:
                    shares[row, vocabulary.ids[word]] = count / len(example.captions)
        yield shares


def _regress(words: Sequence[np.ndarray], features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns ridge regression's weights, float32 (vocabulary, feature_size), and what they explain of the features."""
    shares = np.concatenate(words)  # (photographs, vocabulary)
    products = shares.T @ shares
    products[np.diag_indices(len(products))] += RIDGE
    weights = np.linalg.solve(products, shares.T @ features).astype(np.float32)
    return weights, shares @ weights
