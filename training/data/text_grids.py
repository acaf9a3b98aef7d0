"""Grids for captions without photographs: a similar photograph's, in which each word's features get a place.

A photograph's grid is mostly zeros, and what is strong is strong in some neighbouring cells. From grids like that a
decoder with attention can learn where to look. So a feature that the sentence has less of is lowered where it is;
one that it has more of is raised where it is, to at most twice as much, and the rest is added in the regions of the
words that it comes from. Regions lie where features were lowered: what is new takes the place of what is gone. Knows no
regression and no files.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

NARROWEST, WIDEST = 0.9, 2.0
"""Standard deviation of a region, in cells. The strong features of photographs cover about 20 cells of 81 (1.3)."""
MOST = 2.0  # times as much of a feature where it is already


@dataclass(frozen=True, slots=True, eq=False)
class WordShares:
    """The share of each example's captions that contain a word, without the zeros."""

    words: np.ndarray  # int64 (entries,)
    shares: np.ndarray  # float32 (entries,)
    offsets: np.ndarray  # int64 (examples + 1,): each one's first entry

    @classmethod
    def of(cls, blocks: Iterable[np.ndarray]) -> "WordShares":
        """Takes dense shares, float32 (some examples, vocabulary) each."""
        words, shares, counts = [], [], []
        for block in blocks:
            rows, columns = np.nonzero(block)
            words.append(columns)
            shares.append(block[rows, columns])
            counts.append(np.bincount(rows, minlength=len(block)))
        offsets = np.concatenate([[0], np.cumsum(np.concatenate(counts), dtype=np.int64)])
        return cls(np.concatenate(words), np.concatenate(shares), offsets)

    def difference(self, row: int, other: "WordShares", other_row: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns the words of either example, int64 (words,), and how much larger this one's shares are."""
        mine, theirs = (slice(*each.offsets[at : at + 2]) for each, at in ((self, row), (other, other_row)))
        words, places = np.unique(np.concatenate([self.words[mine], other.words[theirs]]), return_inverse=True)
        shares = np.concatenate([self.shares[mine], -other.shares[theirs]])
        return words, np.bincount(places, shares, len(words)).astype(np.float32)


def regions(centres: np.ndarray, widths: np.ndarray, height: int, width: int) -> np.ndarray:
    """Returns bell-shaped regions around cells, with a mean of 1: float32 (regions, height * width).

    centres: int64 (regions,), cells in row-major order. widths: float (regions,), standard deviations in cells.
    """
    down, right = np.divmod(np.arange(height * width), width)
    apart = (down - down[centres, None]) ** 2 + (right - right[centres, None]) ** 2  # (regions, cells)
    bells = np.exp(-apart / (2 * widths[:, None] ** 2))
    found: np.ndarray = (bells / bells.mean(axis=1, keepdims=True)).astype(np.float32)
    return found


def changed(
    grid: np.ndarray, mean: np.ndarray, wanted: np.ndarray, pulls: np.ndarray, generator: np.random.Generator
) -> np.ndarray:
    """Returns a grid, float32 (height, width, feature_size), changed so that its mean becomes the wanted one.

    mean and wanted are float32 (feature_size,). pulls, float32 (words, feature_size), says how much each word raises
    each feature; each word gets a region. The generator draws the regions.
    """
    height, width, _ = grid.shape
    cells = grid.reshape(height * width, -1).astype(np.float32)
    there = (mean > 0) & (wanted >= 0)
    scale = np.divide(np.minimum(wanted, MOST * mean), mean, out=np.ones_like(mean), where=there)
    missing = wanted - mean * scale
    gone = np.maximum(cells, 0) @ np.maximum(1 - scale, 0) + 1e-6  # (cells,)
    centres = generator.choice(len(gone), len(pulls), p=gone / gone.sum())
    places = regions(centres, generator.uniform(NARROWEST, WIDEST, len(pulls)), height, width)
    pulls = np.maximum(pulls, 0)
    total = pulls.sum(axis=0)
    placed = np.divide(places.T @ pulls, total, out=np.ones_like(cells), where=total > 0)  # (cells, feature_size)
    cells *= scale
    cells += np.where(missing > 0, placed, 1) * missing
    return cells.reshape(grid.shape)
