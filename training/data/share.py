"""Splits batches between processes that train together. Knows nothing of what is in a batch."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Share:
    """The share of process `rank` of `size`. The shares, in order of rank, make up the whole without overlap."""

    rank: int = 0
    size: int = 1

    def of(self, examples: int) -> slice:
        """Returns this share of a number of examples; shares differ by one at most."""
        return slice(self.rank * examples // self.size, (self.rank + 1) * examples // self.size)

    def of_images(self, counts: np.ndarray) -> slice:
        """Returns this share of images with int64 (images,) captions each, split so that captions are most even.

        Every process gets at least one image if there are enough.
        """
        ranks, spare = np.arange(self.size + 1), len(counts) - self.size
        middles = np.cumsum(counts) - counts / 2  # captions before the middle of each image
        cuts = np.searchsorted(middles, counts.sum() * ranks / self.size)  # (size + 1,)
        cuts = np.maximum.accumulate(cuts - ranks) + ranks  # at least one image each from the front
        cuts = np.minimum(cuts, ranks + spare).clip(min=0)  # and from the back
        return slice(int(cuts[self.rank]), int(cuts[self.rank + 1]))


ALL = Share()
