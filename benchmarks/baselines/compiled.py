"""The baseline of torch.compile: encoder and decoder step compiled by Inductor, which needs a C++ compiler.

Compilation and the first calls are not timed. The encoder is compiled for 1 and for CHUNK images; batches are split
into chunks, and the last one is padded, because dynamic shapes compile to slower code. The number of rows of a step
varies too much for that (images leave), so it is marked dynamic.
"""

import warnings
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.baselines.base import Baseline
from benchmarks.baselines.eager import Eager
from benchmarks.baselines.search import State
from engine.bundle.bundle import Bundle

CHUNK = 8


class Compiled(Eager):
    """PyTorch's encoder and decoder of a bundle, compiled when made."""

    pixels, prepare, levels = Baseline.pixels, Baseline.prepare, Baseline.levels

    def __init__(self, bundle: Bundle, threads: int = 0) -> None:
        super().__init__(bundle, threads)
        self.compiled_encoder = torch.compile(self.encoder, dynamic=False)
        self.compiled_step = torch.compile(self.score, dynamic=True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Inductor warns of itself
            for images in (1, CHUNK):
                features = self.encode(np.zeros((images, self.image.height, self.image.width, 3), np.uint8))
            for rows in (1, CHUNK, 2):
                self.stepper(features[:rows])()

    @torch.inference_mode()
    def encode(self, pixels: Any) -> np.ndarray:
        """See Baseline."""
        if len(pixels) == 1:
            return np.asarray(self.compiled_encoder(torch.from_numpy(pixels)))
        missing = -len(pixels) % CHUNK
        filled = np.concatenate([pixels, np.zeros((missing, *pixels.shape[1:]), np.uint8)]) if missing else pixels
        images = torch.from_numpy(filled)
        parts = [self.compiled_encoder(images[i : i + CHUNK]) for i in range(0, len(images), CHUNK)]
        return np.asarray(torch.cat(parts)[: len(pixels)])

    @torch.inference_mode()
    def step(self, token_ids: np.ndarray, state: State) -> tuple[Tensor, State]:
        """See Decoder."""
        log_probs, *following = self.compiled_step(torch.from_numpy(token_ids), *state)
        log_probs[:, self.never] = -torch.inf
        return log_probs, tuple(following)
