"""The counts behind corpus scores: a row of numbers per image, whose sum over images determines the score.

So any set of images can be scored cheaply, which resampling needs. Knows no captions.

BLEU: Papineni et al. 2002, with the smoothing constants of pycocoevalcap, whose corpus figures these are. METEOR:
Denkowski and Lavie 2014, version 1.5 with its parameters for English. ROUGE-L and CIDEr are means over images.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.float64]

BLEU_COLUMNS = 10  # n-grams of 1 to 4 words found, and said; length, that of the closest reference
METEOR_COLUMNS = 23  # in the order in which the METEOR program prints them
BLEU_NAMES = ("BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4")
METRICS = (*BLEU_NAMES, "METEOR", "ROUGE-L", "CIDEr")
TINY, SMALL = 1e-15, 1e-9  # pycocoevalcap's
ALPHA, BETA, GAMMA, DELTA = 0.85, 0.2, 0.6, 0.75  # METEOR 1.5, English
STAGE_WEIGHTS = np.array([1.0, 0.6, 0.8, 0.6])  # matches that are exact, of one stem, synonyms, paraphrases


@dataclass(frozen=True, slots=True)
class ImageCounts:
    """Rows of all images in one order.

    bleu (images, 10); meteor (images, 23), or None if it was skipped; means: metric -> (images,).
    """

    images: tuple[str, ...]
    bleu: Rows
    meteor: Rows | None
    means: Mapping[str, Rows]

    def table(self) -> Rows:
        """Returns all rows side by side with a column of ones in front, which counts images: (images, columns)."""
        ones = np.ones(len(self.images))
        columns = [ones, self.bleu, *self.means.values(), *(() if self.meteor is None else (self.meteor,))]
        return np.column_stack(columns)

    def score(self, sums: Rows) -> dict[str, Rows]:
        """Scores sets of images by the sums of their rows of `table`: (sets, columns) -> metric -> (sets,)."""
        bleu = bleu_scores(sums[..., 1 : 1 + BLEU_COLUMNS])
        scores = {name: bleu[..., order] for order, name in enumerate(BLEU_NAMES)}
        for column, name in enumerate(self.means, start=1 + BLEU_COLUMNS):
            scores[name] = sums[..., column] / sums[..., 0]
        if self.meteor is not None:
            scores["METEOR"] = meteor_scores(sums[..., -METEOR_COLUMNS:])
        return {name: scores[name] for name in METRICS if name in scores}

    def per_image(self) -> dict[str, Rows]:
        """Returns every image's own scores: metric -> (images,)."""
        return self.score(self.table())

    def corpus(self) -> dict[str, float]:
        """Returns the scores of all images together."""
        return {name: float(value) for name, value in self.score(self.table().sum(axis=0)).items()}


def bleu_scores(sums: Rows) -> Rows:
    """Returns BLEU-1 to BLEU-4 of summed rows: (sets, 10) -> (sets, 4)."""
    precisions = (sums[..., :4] + TINY) / (sums[..., 4:8] + SMALL)
    means = np.cumprod(precisions, axis=-1) ** (1 / np.arange(1, 5))  # (sets, 4)
    ratio = (sums[..., 8:9] + TINY) / (sums[..., 9:10] + SMALL)
    with np.errstate(over="ignore"):
        return np.where(ratio < 1, means * np.exp(np.minimum(0, 1 - 1 / ratio)), means)


def meteor_scores(sums: Rows) -> Rows:
    """Returns METEOR of summed rows, as training.metrics.meteor makes them: (sets, 23) -> (sets,)."""
    said, meant, said_function, meant_function = (sums[..., column] for column in range(4))
    stages = sums[..., 4:20].reshape(*sums.shape[:-1], 4, 4)  # (sets, stage, content and function of said and meant)
    chunks, said_words, meant_words = (sums[..., column] for column in range(20, 23))
    content, function = stages[..., :2], stages[..., 2:]
    weighted = np.einsum("...sk,s->...k", DELTA * content + (1 - DELTA) * function, STAGE_WEIGHTS)
    with np.errstate(divide="ignore", invalid="ignore"):
        precision = weighted[..., 0] / (DELTA * (said - said_function) + (1 - DELTA) * said_function)
        recall = weighted[..., 1] / (DELTA * (meant - meant_function) + (1 - DELTA) * meant_function)
        mean = 1 / ((1 - ALPHA) / precision + ALPHA / recall)
        fragments = chunks / ((said_words + meant_words) / 2)
    scores = mean * (1 - GAMMA * fragments**BETA)
    return np.where(np.isnan(scores), 0, np.maximum(scores, 0))
