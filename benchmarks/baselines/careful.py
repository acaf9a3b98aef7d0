"""The baseline of a careful user: like `eager`, but files are decoded on all cores, and the encoder takes uint8 pixels
in chunks of the size that is fastest on this machine.
"""

import time
from typing import Any

import numpy as np
import torch

from benchmarks.baselines.base import Baseline
from benchmarks.baselines.eager import Eager
from engine.bundle.bundle import Bundle

CHUNKS = (4, 8, 16, 32)
"""Chunk sizes to try: the encoder may be slower with large batches than with small ones."""
ROUNDS = 3


class Careful(Eager):
    """PyTorch's encoder and decoder of a bundle, with the encoder's chunks measured at the start."""

    pixels, prepare, levels = Baseline.pixels, Baseline.prepare, Baseline.levels

    def __init__(self, bundle: Bundle, threads: int = 0) -> None:
        super().__init__(bundle, threads)
        self.chunk = self._fastest_chunk()

    def encode(self, pixels: Any) -> np.ndarray:
        """See Baseline."""
        return self.encode_in_chunks(pixels, self.chunk)

    @torch.inference_mode()
    def encode_in_chunks(self, pixels: np.ndarray, chunk: int) -> np.ndarray:
        """Encodes at most `chunk` images at once."""
        images = torch.from_numpy(pixels)
        return np.asarray(torch.cat([self.encoder(images[i : i + chunk]) for i in range(0, len(images), chunk)]))

    def _fastest_chunk(self) -> int:
        """Times each size on the same number of images, alternately, and returns the fastest."""
        shape = (max(CHUNKS), self.image.height, self.image.width, 3)
        pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
        shortest = dict.fromkeys(CHUNKS, float("inf"))
        for chunk in CHUNKS * ROUNDS:
            start = time.perf_counter()
            self.encode_in_chunks(pixels, chunk)
            shortest[chunk] = min(shortest[chunk], time.perf_counter() - start)
        return min(CHUNKS, key=shortest.__getitem__)
