"""The vectors of all photographs of an index, in memory. Knows no database."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from engine.search.store import BundleKey, Changes, Store

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
        ids, vectors = changes.ids.tolist(), unit(changes.vectors)
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

    def rows_of(self, ids: Sequence[int]) -> np.ndarray:
        """Returns the rows of those of the ids that are here and have a file: int64 (rows,)."""
        rows = np.array([row for id_ in ids if (row := self._rows.get(id_)) is not None], np.int64)
        found: np.ndarray = rows[self.living[rows]]
        return found

    def similarities(self, vector: np.ndarray) -> np.ndarray:
        """Returns the cosine of each row with a unit vector (size,): float32 (rows,); -inf without a file."""
        cosines: np.ndarray = self.vectors @ vector
        cosines[~self.living] = -np.inf
        return cosines


class TableStore(Store):
    """A store whose vectors are kept in memory, where all of them are compared. Threads may share it."""

    def __init__(self, bundle: BundleKey) -> None:
        self._bundle = bundle
        self._table = VectorTable(bundle.vector_size)
        self._table_lock = threading.Lock()

    def nearest(self, vector: np.ndarray, limit: int) -> dict[int, float]:
        """See Store."""
        if not self._bundle.vector_size:
            return {}
        with self._fresh() as table:
            cosines = table.similarities(vector)
            rows = best(cosines, limit)
            return dict(zip(table.ids[rows].tolist(), cosines[rows].tolist(), strict=True))

    def cosines(self, vector: np.ndarray, ids: Sequence[int]) -> dict[int, float]:
        """See Store."""
        with self._fresh() as table:
            rows = table.rows_of(ids)
            return dict(zip(table.ids[rows].tolist(), (table.vectors[rows] @ vector).tolist(), strict=True))

    def vector(self, id_: int) -> np.ndarray | None:
        """See Store."""
        if not self._bundle.vector_size:
            return None
        with self._fresh() as table:
            rows = table.rows_of([id_])
            return table.vectors[rows[0]].copy() if len(rows) else None

    @contextmanager
    def _fresh(self) -> Iterator[VectorTable]:
        """Lends one thread the table, with all that was written until now."""
        with self._table_lock:
            self._table.update(self.changes(self._table.revision))
            yield self._table


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


def unit(directions: np.ndarray) -> np.ndarray:
    """Returns int8 directions (photos, size) as unit vectors: float32 (photos, size); zeros stay zeros."""
    vectors = np.empty(directions.shape, np.float32)
    for start in range(0, len(vectors), AT_ONCE):
        part = vectors[start : start + AT_ONCE]
        part[:] = directions[start : start + AT_ONCE]
        part /= np.sqrt(np.maximum(np.einsum("ij,ij->i", part, part), 1))[:, None]
    return vectors
