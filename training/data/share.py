"""Whose part of a batch is whose, where several processes train together. Knows nothing of what a batch holds."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Share:
    """The part of process `rank` of `size`. All parts together, in order of rank, are the whole, nothing twice."""

    rank: int = 0
    size: int = 1

    def of(self, examples: int) -> slice:
        """Returns this part of so many examples; parts differ by one at most."""
        return slice(self.rank * examples // self.size, (self.rank + 1) * examples // self.size)

    def of_images(self, counts: np.ndarray) -> slice:
        """Returns this part of images that have int64 (images,) captions each, cut where captions come out evenest.

        Every process gets an image where there are as many.
        """
        ranks, spare = np.arange(self.size + 1), len(counts) - self.size
        middles = np.cumsum(counts) - counts / 2  # captions before the middle of each image
        cuts = np.searchsorted(middles, counts.sum() * ranks / self.size)  # (size + 1,)
        cuts = np.maximum.accumulate(cuts - ranks) + ranks  # at least one image each from the front
        cuts = np.minimum(cuts, ranks + spare).clip(min=0)  # and from the back
        return slice(int(cuts[self.rank]), int(cuts[self.rank + 1]))


ALL = Share()
