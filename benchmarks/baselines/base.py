"""Shared code of the baselines: JPEG files in, sentences out, with Pillow on all cores and the searches of search.py.

A baseline adds the encoder and the decoder in its library. Knows nothing of the engine's implementation.
"""

import abc
import io
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.baselines.search import Search, Sentence, State
from engine.bundle.bundle import Bundle
from engine.options import Decoding

Step = Callable[[], tuple[np.ndarray, np.ndarray]]
"""Reads a word per row, continuing from its last state; returns the best next ids and log-probs, (rows,)."""


class Baseline(abc.ABC):
    """A bundle's model in some library, on the CPU; a Decoder. Threads: 0 is the library's default."""

    def __init__(self, bundle: Bundle, threads: int = 0) -> None:
        self.bundle, self.search, self.image = bundle, Search(bundle), bundle.manifest.image
        if self.image.resize != "squash":
            raise ValueError(
                f"baselines only squash photographs, but this bundle resizes by {self.image.resize!r}: use another"
            )
        vocabulary = bundle.vocabulary
        self.never = list(vocabulary.never)
        self.threads = threads
        self.pool = ThreadPoolExecutor(threads or os.cpu_count())

    @abc.abstractmethod
    def encode(self, pixels: Any) -> np.ndarray:
        """Returns features float32 (batch, *feature_shape) of what `pixels` or `prepare` returned."""

    @abc.abstractmethod
    def start(self, features: np.ndarray) -> State:
        """See Decoder."""

    @abc.abstractmethod
    def step(self, token_ids: np.ndarray, state: State) -> tuple[Any, State]:
        """See Decoder."""

    @abc.abstractmethod
    def best(self, log_probs: Any, k: int) -> tuple[np.ndarray, np.ndarray]:
        """See Decoder."""

    @abc.abstractmethod
    def draw(self, log_probs: Any) -> np.ndarray:
        """See Decoder."""

    def pixels(self, files: Sequence[bytes]) -> Any:
        """Decodes and resizes image files on all cores: uint8 (files, height, width, 3)."""
        return np.stack(list(self.pool.map(self._pixels, files)))

    def _pixels(self, file: bytes) -> np.ndarray:
        size, resample = (self.image.width, self.image.height), Image.Resampling[self.image.resample.upper()]
        return np.asarray(Image.open(io.BytesIO(file)).convert("RGB").resize(size, resample))

    def prepare(self, pixels: np.ndarray) -> Any:
        """Turns uint8 pixels (batch, height, width, 3) into what `pixels` would have returned."""
        return pixels

    def levels(self, pixels: Any) -> np.ndarray:
        """Undoes `prepare`."""
        return np.asarray(pixels)

    def decode(self, features: np.ndarray, decoding: Decoding) -> list[Sentence]:
        """Writes a sentence for each row of features."""
        return self.search.decode(self, features, decoding)

    def caption(self, files: Sequence[bytes], decoding: Decoding) -> list[Sentence]:
        """JPEG files to sentences."""
        return self.decode(self.encode(self.pixels(files)), decoding)

    def stepper(self, features: np.ndarray) -> Step:
        """Begins a decode of features whose every step reads START."""
        state, given = self.start(features), np.full(len(features), self.bundle.vocabulary.start_id)

        def step() -> tuple[np.ndarray, np.ndarray]:
            nonlocal state
            log_probs, state = self.step(given, state)
            ids, best = self.best(log_probs, 1)
            return ids[:, 0], best[:, 0]

        return step
