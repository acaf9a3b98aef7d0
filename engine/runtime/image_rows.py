"""Which row of the context tensors each row of a decode reads. Owns no memory of the tensors.

Context (see engine.bundle.manifest.ContextTensor) is stored once for each image, however many sentences the image has
and however they are reordered: only these numbers are gathered. A row of context is free again once no sentence reads
it, so images can join and leave without any other context being copied.
"""

from itertools import pairwise

import numpy as np


class ImageRows:
    """The rows of context that the rows of the last step read; -1 for rows that hold no sentence."""

    def __init__(self, step: int = 1) -> None:
        """step: images that join are written to its multiples, for memory that can be written from some only."""
        self._step = step
        self._read = np.empty(0, np.int64)

    def free(self, images: int) -> np.ndarray:
        """Returns a free row for each of some images, int64 (images,), lowest first.

        The images that a decode starts with are next to each other, so that one run can write all of them.
        """
        held = np.unique(self._read[self._read >= 0])
        if not len(held):
            return np.arange(images)
        rows = np.setdiff1d(np.arange(len(held) + images) * self._step, held)  # sorted
        return rows[:images]

    def assign(self, first: int, rows: np.ndarray) -> None:
        """Notes that the rows of state from `first` on read these rows, int64 (images,)."""
        gap = np.full(first - len(self._read), -1)
        self._read = np.concatenate([self._read, gap, rows])

    def follow(self, parent_rows: np.ndarray) -> np.ndarray:
        """Returns the rows that a step reads, int64 (rows,), given the row of state that each continues."""
        self._read = self._read[parent_rows]
        return self._read


def runs(rows: np.ndarray) -> list[slice]:
    """Returns where rows, int64 (count,), are consecutive numbers: the positions of each run, in order."""
    breaks = [0, *(np.nonzero(np.diff(rows) != 1)[0] + 1).tolist(), len(rows)]
    return [slice(a, b) for a, b in pairwise(breaks) if a < b]
