"""Features for captions without photographs, predicted from the words, so that a decoder can learn from text too.

Ridge regression predicts a photograph's features from the words of its captions; the residual is borrowed from a
photograph with a similar caption. So a sentence gets features as noisy as an encoder's would be. The idea of training
a captioner on text with noise in place of the image is CapDec's (Nukrai et al. 2022, arXiv:2211.00575); the regression
replaces an encoder that understands text. Where photographs have grids, a sentence gets the grid of the photograph that
lends its residual, changed so that its mean is the vector that the sentence would have. Knows no decoder and no files.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from engine.bundle.vocabulary import Vocabulary, split
from training.data.batches import Features
from training.data.examples import DataError, Example

RIDGE = 10.0
"""Penalty on the regression's weights: predicts held-out photographs better than 3 does (docs/quality.md)."""
NEAREST = 40
"""Number of similar photographs, of which one lends its residual: better than any photograph (docs/quality.md)."""
AT_ONCE, POOLED_AT_ONCE = 4096, 256


@dataclass(frozen=True, eq=False)
class TextFeatures(Features):
    """One view of features made from sentences."""

    names: tuple[str, ...]
    means: np.ndarray  # float16 (sentences, feature_size): predicted from the words, shared by all views
    residuals: np.ndarray  # float16 (photographs, feature_size): residuals of photographs in this view
    drawn: np.ndarray  # int64 (sentences,): whose residual each one gets
    limits: tuple[float, float]  # of real features

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        """Returns features of rows, int64 (count,): float32 (count, feature_size)."""
        found = self.means[rows].astype(np.float32) + self.residuals[self.drawn[rows]]
        clipped: np.ndarray = np.clip(found, *self.limits, out=found)
        return clipped


@dataclass(frozen=True, eq=False)
class TextGrids(TextFeatures):
    """One view of grids made from sentences, batch by batch: all of them would not fit into memory."""

    lent: Features  # float (photographs, height, width, feature_size)
    places: np.ndarray  # int64 (photographs,): their rows there
    pooled: np.ndarray  # float32 (photographs, feature_size): their means

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        """Returns grids of rows, int64 (count,): float32 (count, height, width, feature_size)."""
        lenders = self.drawn[rows]
        return with_mean(self.lent[self.places[lenders]], self.pooled[lenders], super().__getitem__(rows))


def with_mean(grids: np.ndarray, means: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Returns grids (count, height, width, feature_size) changed so that their means become the wanted ones.

    Both means are (count, feature_size). A feature that should become weaker is scaled, so that it stays where it is
    and no cell changes its sign; one that should become stronger is raised by the same amount in all cells.
    """
    weaker = (means > 0) & (wanted >= 0) & (wanted < means)
    scale = np.divide(wanted, means, out=np.ones_like(means), where=weaker)
    changed: np.ndarray = np.multiply(grids, scale[:, None, None], dtype=np.float32)
    changed += (wanted - means * scale)[:, None, None]
    return changed


def text_features(
    sentences: Sequence[Example],
    described: Sequence[Example],
    views: Sequence[Features],
    vocabulary: Vocabulary,
    *,
    seed: int = 0,
) -> tuple[TextFeatures, ...]:
    """Returns features for sentences, one view for each of the `views` of the photographs `described`.

    The same seed gives the same features. Views hold vectors, (photographs, feature_size), or grids, (photographs,
    height, width, feature_size). Raises DataError if no photograph has features.
    """
    known = set.intersection(*(set(view.names) for view in views))
    kept = [example for example in described if example.name in known]
    if not kept:
        raise DataError("no photograph has features, so none can be made for sentences")
    places = [np.array([view.row(each.name) for each in kept]) for view in views]
    seen = [_pooled(view, rows) for view, rows in zip(views, places, strict=True)]
    average = np.mean(seen, axis=0)  # (photographs, feature_size)
    centre = average.mean(axis=0)
    weights = _regress(kept, vocabulary, average - centre)
    explained, said = (_predict(examples, vocabulary, weights) for examples in (kept, sentences))
    nearest = _nearest(said, explained)
    means = (centre + said).astype(np.float16)
    limits = float(min(each.min() for each in seen)), float(max(each.max() for each in seen))
    names = tuple(example.name for example in sentences)
    generator = np.random.default_rng(seed)
    made = []
    for view, rows, each in zip(views, places, seen, strict=True):
        lenders = generator.integers(0, nearest.shape[1], (len(names), 1))
        drawn = np.take_along_axis(nearest, lenders, axis=1)[:, 0]
        common = names, means, (each - centre - explained).astype(np.float16), drawn, limits
        flat = view[rows[:1]].ndim == 2
        made.append(TextFeatures(*common) if flat else TextGrids(*common, view, rows, each))
    return tuple(made)


def _pooled(view: Features, rows: np.ndarray) -> np.ndarray:
    """Returns photographs' features, of grids the means: float32 (photographs, feature_size)."""
    parts = (np.asarray(view[some], np.float32) for some in np.array_split(rows, -(-len(rows) // POOLED_AT_ONCE)))
    return np.concatenate([part.mean(axis=(1, 2)) if part.ndim == 4 else part for part in parts])


def _regress(examples: Sequence[Example], vocabulary: Vocabulary, features: np.ndarray) -> np.ndarray:
    """Returns the ridge regression's weights from words to features: float32 (vocabulary, feature_size)."""
    products = RIDGE * np.eye(len(vocabulary))
    targets = np.zeros((len(vocabulary), features.shape[1]))
    for rows, shares in _word_shares(examples, vocabulary):
        products += shares.T @ shares
        targets += shares.T @ features[rows]
    return np.linalg.solve(products, targets).astype(np.float32)


def _predict(examples: Sequence[Example], vocabulary: Vocabulary, weights: np.ndarray) -> np.ndarray:
    """Returns the features predicted from the words: float32 (examples, feature_size)."""
    return np.concatenate([shares @ weights for _, shares in _word_shares(examples, vocabulary)])


def _nearest(said: np.ndarray, explained: np.ndarray) -> np.ndarray:
    """Returns the photographs with the most similar predicted features: int64 (sentences, at most NEAREST).

    Both are float32 (examples, feature_size); similarity is the cosine.
    """
    norms = np.linalg.norm(explained, axis=1, keepdims=True)
    directions = np.divide(explained, norms, out=np.zeros_like(explained), where=norms > 0)
    count = min(NEAREST, len(explained))
    found = np.empty((len(said), count), np.int64)
    for start in range(0, len(said), AT_ONCE):
        rows = slice(start, start + AT_ONCE)
        found[rows] = np.argpartition(-(said[rows] @ directions.T), count - 1, axis=1)[:, :count]
    return found


def _word_shares(examples: Sequence[Example], vocabulary: Vocabulary) -> Iterator[tuple[slice, np.ndarray]]:
    """Yields the share of each example's captions that contain a word: places, float32 (some examples, vocabulary)."""
    for start in range(0, len(examples), AT_ONCE):
        rows = slice(start, start + AT_ONCE)
        shares = np.zeros((len(examples[rows]), len(vocabulary)), np.float32)
        for row, example in zip(shares, examples[rows], strict=True):
            for word in (word for caption in example.captions for word in set(split(caption))):
                if word in vocabulary.ids:
                    row[vocabulary.ids[word]] += 1 / len(example.captions)
        yield rows, shares
