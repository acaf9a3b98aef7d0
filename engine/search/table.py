"""The vectors of all photographs of an index, in memory. Knows no database."""

from copy import copy

import numpy as np

from engine.search.store import Changes

AT_ONCE = 1024  # photographs whose vectors are widened together: what is between fits into the cache


def as_direction(vectors: np.ndarray) -> np.ndarray:
    """Returns vectors, float (photos, size), as they are stored: int8 (photos, size), each with a 127 in it."""
    largest = np.abs(vectors).max(axis=-1, keepdims=True, initial=0)
    rounded: np.ndarray = np.rint(vectors * np.divide(127, largest, out=np.zeros_like(largest), where=largest > 0))
    return rounded.astype(np.int8)


class VectorTable:
    """Ids and unit vectors of photographs. Rows keep their places; photographs without files stay, marked.

    Takes 4 bytes for each number: 200 MB for 100,000 photographs with 512.
    """

    def __init__(self, size: int) -> None:
        """size: of a vector; 0 if the bundle has none."""
        self.revision = 0
        self.ids = np.empty(0, np.int64)  # (rows,)
        self.living = np.empty(0, bool)  # (rows,)
        self.vectors = np.empty((0, size), np.float32)  # (rows, size)
        self._rows: dict[int, int] = {}

    def __len__(self) -> int:
        """Number of photographs that have a file."""
        return int(self.living.sum())

    def update(self, changes: Changes) -> None:
        """Takes over what was written since this table's revision."""
        ids, vectors = changes.ids.tolist(), _unit(changes.vectors)
        known = np.array([id_ in self._rows for id_ in ids], bool)
        rows = [self._rows[id_] for id_, is_known in zip(ids, known, strict=True) if is_known]
        self.living[rows], self.vectors[rows] = changes.living[known], vectors[known]
        if not known.all():
            first = len(self.ids)
            self.ids = np.concatenate([self.ids, changes.ids[~known]])
            self.living = np.concatenate([self.living, changes.living[~known]])
            self.vectors = np.concatenate([self.vectors, vectors[~known]]) if first else vectors
            self._rows |= zip(self.ids[first:].tolist(), range(first, len(self.ids)), strict=True)
        self.revision = changes.revision

    def snapshot(self) -> "VectorTable":
        """Returns the rows of now, for one search: another thread's update gives them no new ones."""
        return copy(self)

    def rows_of(self, ids: list[int]) -> np.ndarray:
        """Returns the rows of those of the ids that are here and have a file: int64 (rows,)."""
        most = len(self.ids)  # rows of snapshots are the first of those that there are now
        rows = np.array([row for id_ in ids if (row := self._rows.get(id_, most)) < most], np.int64)
        found: np.ndarray = rows[self.living[rows]]
        return found

    def similarities(self, vector: np.ndarray) -> np.ndarray:
        """Returns the cosine of each row with a unit vector (size,): float32 (rows,); -inf without a file."""
        cosines: np.ndarray = self.vectors @ vector
        cosines[~self.living] = -np.inf
        return cosines


def best(scores: np.ndarray, count: int) -> np.ndarray:
    """Returns the places of the highest finite scores, best first, of equal ones the lower place: int64 (places,)."""
    if len(scores) > count:
        least = np.partition(scores, len(scores) - count)[len(scores) - count]
        places = np.flatnonzero(scores >= least)
    else:
        places = np.arange(len(scores))
    places = places[np.isfinite(scores[places])]
    ordered: np.ndarray = places[np.argsort(-scores[places], kind="stable")][:count]
    return ordered


def _unit(directions: np.ndarray) -> np.ndarray:
    """Returns int8 directions (photos, size) as unit vectors: float32 (photos, size); zeros stay zeros."""
    vectors = np.empty(directions.shape, np.float32)
    for start in range(0, len(vectors), AT_ONCE):
        part = vectors[start : start + AT_ONCE]
        part[:] = directions[start : start + AT_ONCE]
        part /= np.sqrt(np.maximum(np.einsum("ij,ij->i", part, part), 1))[:, None]
    return vectors
