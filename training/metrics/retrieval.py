"""Recall of search: how often what belongs to a query is among the first results. Knows only similarities."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Recall:
    """Shares of queries, from 0 to 1, whose match is among the best 1, 5 and 10, and the median of its rank from 1."""

    at_1: float
    at_5: float
    at_10: float
    median_rank: float

    @classmethod
    def of(cls, ranks: np.ndarray) -> "Recall":
        """Counts ranks from 1, int64 (queries,)."""
        at_1, at_5, at_10 = (float(np.mean(ranks <= most)) for most in (1, 5, 10))
        return cls(at_1, at_5, at_10, float(np.median(ranks)))

    @property
    def mean(self) -> float:
        """The mean of the three shares, by which spaces are compared."""
        return (self.at_1 + self.at_5 + self.at_10) / 3


def image_ranks(similarity: np.ndarray, owners: np.ndarray) -> np.ndarray:
    """Returns the rank of each text's image: int64 (texts,).

    similarity: (texts, images). owners: int64 (texts,), the image that each text belongs to. Of equally similar images
    the right one counts as the last, so that a space in which all are equal finds nothing.
    """
    own = similarity[np.arange(len(owners)), owners]
    ranks: np.ndarray = (similarity >= own[:, None]).sum(axis=1)
    return ranks


def text_ranks(similarity: np.ndarray, owners: np.ndarray) -> np.ndarray:
    """Returns the rank of each image's best text: int64 (images,); arguments as for `image_ranks`.

    Every image needs a text. Texts of the same image count as one.
    """
    mine = owners[:, None] == np.arange(similarity.shape[1])  # (texts, images)
    best = np.where(mine, similarity, -np.inf).max(axis=0)
    ranks: np.ndarray = 1 + (~mine & (similarity >= best)).sum(axis=0)
    return ranks
