"""Features for captions without photographs, predicted from the words, so that a decoder can learn from text too.

Ridge regression predicts a photograph's features from the words of its captions; the residual is borrowed from a
photograph with a similar caption. So a sentence gets features as noisy as an encoder's would be. The idea of training
a captioner on text with noise in place of the image is CapDec's (Nukrai et al. 2022, arXiv:2211.00575); the regression
replaces an encoder that understands text. Where photographs have grids, a sentence gets the grid of the photograph that
lends its residual, changed by training.data.text_grids so that its mean is the vector that the sentence would have, as
far as the limits of real cells allow. Knows no decoder and no files.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from engine.bundle.vocabulary import Vocabulary, split
from training.data.batches import Features
from training.data.examples import DataError, Example
from training.data.text_grids import WordShares, changed

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
    weights: np.ndarray  # float32 (vocabulary, feature_size): from words to features
    said: WordShares  # of the sentences
    lenders_said: WordShares  # of the photographs
    seed: tuple[int, int]  # of the regions, and the view's number
    cells: tuple[float, float]  # limits of real features in a cell

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        """Returns grids of rows, int64 (count,): float32 (count, height, width, feature_size)."""
        lenders = self.drawn[rows]
        grids = np.asarray(self.lent[self.places[lenders]], np.float32)
        wanted = super().__getitem__(rows)
        for grid, row, lender, mean in zip(grids, rows, lenders, wanted, strict=True):
            words, more = self.said.difference(row, self.lenders_said, lender)
            pulls = more[:, None] * self.weights[words]
            grid[:] = changed(grid, self.pooled[lender], mean, pulls, np.random.default_rng((*self.seed, int(row))))
        return np.clip(grids, *self.cells, out=grids)


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
    seen, cells = zip(*(_pooled(view, rows) for view, rows in zip(views, places, strict=True)), strict=True)
    average = np.mean(seen, axis=0)  # (photographs, feature_size)
    centre = average.mean(axis=0)
    weights = _regress(kept, vocabulary, average - centre)
    explained, said = (_predict(examples, vocabulary, weights) for examples in (kept, sentences))
    nearest = _nearest(said, explained)
    means = (centre + said).astype(np.float16)
    limits = float(min(each.min() for each in seen)), float(max(each.max() for each in seen))
    names = tuple(example.name for example in sentences)
    generator = np.random.default_rng(seed)
    grids = views[0][places[0][:1]].ndim > 2
    shares = (_words_of(sentences, vocabulary), _words_of(kept, vocabulary)) if grids else None
    made = []
    for number, (view, rows, each, ends) in enumerate(zip(views, places, seen, cells, strict=True)):
        lenders = generator.integers(0, nearest.shape[1], (len(names), 1))
        drawn = np.take_along_axis(nearest, lenders, axis=1)[:, 0]
        common = names, means, (each - centre - explained).astype(np.float16), drawn, limits
        if shares is None:
            made.append(TextFeatures(*common))
        else:
            made.append(TextGrids(*common, view, rows, each, weights, *shares, (seed, number), ends))
    return tuple(made)


def _pooled(view: Features, rows: np.ndarray) -> tuple[np.ndarray, tuple[float, float]]:
    """Returns photographs' features, of grids the means, float32 (photographs, feature_size), and a cell's limits."""
    means, least, most = [], np.inf, -np.inf
    for some in np.array_split(rows, -(-len(rows) // POOLED_AT_ONCE)):
        part = np.asarray(view[some], np.float32)
        least, most = min(least, float(part.min())), max(most, float(part.max()))
        means.append(part.mean(axis=(1, 2)) if part.ndim == 4 else part)
    return np.concatenate(means), (least, most)


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


def _words_of(examples: Sequence[Example], vocabulary: Vocabulary) -> WordShares:
    return WordShares.of(shares for _, shares in _word_shares(examples, vocabulary))


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
