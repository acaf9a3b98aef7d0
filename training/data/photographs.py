"""Photographs instead of features, decoded when a batch needs them: for encoders that are trained as a whole.

Knows nothing of encoders or batches.
"""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from engine.bundle.manifest import ImageSpec
from training.data.batches import Features
from training.data.examples import Dataset
from training.data.views import View


@dataclass(frozen=True, eq=False)
class Photographs(Features):
    """One view of a data set's images."""

    names: tuple[str, ...]  # of the images that can be decoded
    dataset: Dataset
    image: ImageSpec
    view: View
    pool: ThreadPoolExecutor

    @classmethod
    def views(
        cls, names: tuple[str, ...], dataset: Dataset, image: ImageSpec, views: Sequence[View]
    ) -> tuple["Photographs", ...]:
        """Returns each view; all share the decoding threads, one per core."""
        pool = ThreadPoolExecutor(os.cpu_count() or 1, "decode")
        return tuple(cls(names, dataset, image, view, pool) for view in views)

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        """Returns the pixels of rows, int64 (count,): uint8 (count, height, width, 3). Raises ImageError, OSError."""

        def pixels(row: int) -> np.ndarray:
            name = self.names[row]
            return self.view.pixels(name, self.dataset.read(name), self.image)

        found = np.empty((len(rows), self.image.height, self.image.width, 3), np.uint8)
        for place, image in zip(found, self.pool.map(pixels, rows.tolist()), strict=True):
            place[:] = image
        return found
