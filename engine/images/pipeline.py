"""From images to features, read one batch ahead. Owns the threads; knows nothing of captions."""

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from PIL import Image

from engine.errors import ImageError
from engine.images.load import ImageInput
from engine.runtime.cuda.device import DeviceFeatures
from engine.runtime.cuda.encoder import DeviceEncoder
from engine.runtime.encoder import LANE_IMAGES, Encoder

READERS = 8
"""Threads that decode images if a device encodes them."""

Fill = Callable[[np.ndarray], ImageError | None]
Encode = Callable[[np.ndarray], np.ndarray | DeviceFeatures]


@dataclass(frozen=True, slots=True)
class Encoded:
    """A batch: for each image its error, or None if it could be read, and the features of those that could."""

    errors: tuple[ImageError | None, ...]
    features: np.ndarray | DeviceFeatures  # (images that could be read, *feature_shape)


class Pipeline:
    """Decodes and encodes batches of images; callers in several threads share its pool.

    On a CPU each thread of the pool both decodes and encodes a few images, which are then still in its cache. Meanwhile
    the search of the previous batch runs.
    """

    def __init__(
        self,
        load: Callable[..., Any],
        encoder: Encoder | DeviceEncoder,
        *,
        shape: tuple[int, int, int],
        batch_size: int,
    ) -> None:
        """load(image, out=pixels) fills uint8 pixels of this shape, (height, width, 3), or raises ImageError."""
        self._load = load
        self._encoder = encoder
        self._shape = shape
        self._batch_size = batch_size
        self._pool = ThreadPoolExecutor(encoder.lanes or READERS, "captioner")

    def read(self, entry: int, image: ImageInput, pixels: np.ndarray) -> ImageError | None:
        """Fills pixels uint8 (height, width, 3) with an image, or returns what is wrong with it."""
        try:
            self._load(image, out=pixels)
        except ImageError as error:
            return error.at(entry)
        return None

    def run(self, images: Iterable[ImageInput], *, fail: bool) -> Iterator[Encoded]:
        """Yields the images batch by batch. fail: raises the first ImageError instead of returning it."""
        entries = enumerate(images)
        fills, error = self._take(entries)
        batch = ahead = self._begin(fills, alone=True)
        try:
            while fills:
                batch, ahead, raised = ahead, None, error
                assert batch is not None, "what was taken has begun"
                fills, error = self._take(entries) if raised is None else ([], None)
                ahead = self._begin(fills, alone=False)
                encoded = batch.finish()
                if fail and (broken := next(filter(None, encoded.errors), None)):
                    raise broken
                yield encoded
                if raised is not None:
                    raise raised
            if error is not None:
                raise error
        finally:
            for begun in (batch, ahead):
                if begun is not None:
                    begun.cancel()

    def encode(self, images: Sequence[ImageInput], *, alone: bool) -> Encoded:
        """Reads and encodes images in the calling thread; alone: on all cores, since no other thread encodes."""
        fills = [self._fill(entry, image) for entry, image in enumerate(images)]
        if self._encoder.lanes:
            return self._read_and_encode(fills, self._encoder.encode if alone else self._encoder.encode_in_lane)
        pixels = np.empty((len(fills), *self._shape), np.uint8)
        errors = list(self._pool.map(lambda i: fills[i](pixels[i]), range(len(fills))))
        return self._encode(errors, pixels, self._encoder.encode)

    def _take(self, entries: Iterator[tuple[int, ImageInput]]) -> tuple[list[Fill], Exception | None]:
        """Takes the next batch. Returns what the iterable raised beside the images that came before."""
        fills: list[Fill] = []
        try:
            fills.extend(self._fill(*entry) for entry in itertools.islice(entries, self._batch_size))
        except Exception as error:
            return fills, error
        return fills, None

    def _begin(self, fills: list[Fill], *, alone: bool) -> "_Batch | None":
        """Starts reading and encoding a batch, if there is one; alone: no other batch is running."""
        images, lanes = len(fills), self._encoder.lanes
        if not images:
            return None
        if images == 1 and alone:  # no other thread reads, and the encoder uses them all
            return _Batch(partial(self._read_and_encode, fills, self._encoder.encode))
        if lanes and (images % lanes == 0 or images >= 4 * lanes):
            chunks = -(-images // LANE_IMAGES)
            chunks += -chunks % lanes  # the same number for each lane
            bounds = [i * images // chunks for i in range(chunks + 1)]
            work = partial(self._read_and_encode, encode=self._encoder.encode_in_lane)
            parts = [self._pool.submit(work, fills[a:b]) for a, b in itertools.pairwise(bounds) if a < b]
            return _Batch(partial(_gather, parts), parts)
        pixels = np.empty((images, *self._shape), np.uint8)
        reads = [self._pool.submit(fill, pixels[i]) for i, fill in enumerate(fills)]
        return _Batch(lambda: self._encode([read.result() for read in reads], pixels, self._encoder.encode), reads)

    def _fill(self, entry: int, image: ImageInput) -> Fill:
        if isinstance(image, bytearray):  # its owner may overwrite it before the next image is taken
            image = bytes(image)
        if not isinstance(image, np.ndarray | Image.Image):
            return partial(self.read, entry, image)
        pixels = np.empty(self._shape, np.uint8)  # its owner may change the image, too
        error = self.read(entry, image, pixels)

        def copy(out: np.ndarray) -> ImageError | None:
            out[:] = pixels
            return error

        return copy

    def _read_and_encode(self, fills: list[Fill], encode: Encode) -> Encoded:
        pixels = np.empty((len(fills), *self._shape), np.uint8)
        return self._encode([fill(pixels[i]) for i, fill in enumerate(fills)], pixels, encode)

    def _encode(self, errors: list[ImageError | None], pixels: np.ndarray, encode: Encode) -> Encoded:
        good = pixels[[error is None for error in errors]] if any(errors) else pixels
        return Encoded(tuple(errors), encode(good))


@dataclass(frozen=True, slots=True)
class _Batch:
    """A batch that is being read and encoded; finish() waits for it."""

    finish: Callable[[], Encoded]
    futures: Sequence[Future[Any]] = ()

    def cancel(self) -> None:
        """Returns once no image of the batch is being read: the files belong to the caller."""
        wait([future for future in self.futures if not future.cancel()])


def _gather(parts: Sequence[Future[Encoded]]) -> Encoded:
    encoded = [part.result() for part in parts]
    errors = tuple(itertools.chain.from_iterable(part.errors for part in encoded))
    return Encoded(errors, np.concatenate([part.features for part in encoded]))
