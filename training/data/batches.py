"""Captions as one padded matrix with their images' features; batches are gathered from it. Knows nothing of models.

Every process draws the same plan of all batches and gathers only its own share of each.
"""

import hashlib
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice

import numpy as np

from engine.bundle.vocabulary import Vocabulary, pad_matrix
from training.data.examples import DataError, Example
from training.data.share import ALL, Share


class Features(ABC):
    """One view of images by name: their features, or what an encoder computes them from."""

    names: tuple[str, ...]

    @abstractmethod
    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        """Returns the features of rows, int64 (count,): (count, *shape)."""

    def row(self, name: str) -> int:
        """Returns an image's row. Raises KeyError for one without features, such as a broken one."""
        return self._rows[name]

    @cached_property
    def _rows(self) -> dict[str, int]:
        return {name: row for row, name in enumerate(self.names)}


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Images with one caption each."""

    images: np.ndarray  # int64 (examples,): positions in the table's names
    features: np.ndarray  # float32 (examples, ...), or (images, ...) with owners
    tokens: np.ndarray  # int64 (examples, longest): START, words, END, padding
    owners: np.ndarray | None = None  # int64 (examples,): each one's row in features, where images share them


@dataclass(frozen=True, slots=True, eq=False)
class CaptionTable:
    """All captions of a split, encoded once, in the order of their images."""

    vocabulary: Vocabulary
    names: tuple[str, ...]  # of the images with features and captions
    captions: tuple[tuple[str, ...], ...]  # per image
    features: tuple[Features, ...]  # per view of the images
    rows: np.ndarray  # int64 (views, images): each image's row in the features of a view
    tokens: np.ndarray  # int64 (captions, longest)
    lengths: np.ndarray  # int64 (captions,): tokens without padding
    offsets: np.ndarray  # int64 (images + 1,): each image's first caption
    sources: tuple[str, ...]  # per image: its data set; the images of each are contiguous
    weights: np.ndarray  # float64 (images,): how often each is drawn per round on average; the mean is 1

    @classmethod
    def build(
        cls,
        examples: Sequence[Example],
        views: Sequence[Features],
        vocabulary: Vocabulary,
        max_words: int,
        weights: Mapping[str, float] | None = None,
    ) -> "CaptionTable":
        """Encodes the captions of every example that has features in all views, such as plain and mirrored.

        weights: how often each source as a whole is drawn relative to the others; without weights every image is drawn
        equally often. Raises DataError if no image is left to draw.
        """
        known = set.intersection(*(set(view.names) for view in views))
        kept = [example for example in examples if example.name in known and example.captions]
        if not kept:
            raise DataError("no image has both features and captions, so there is nothing to train on")
        sequences = [vocabulary.encode(text, max_words) for example in kept for text in example.captions]
        counts = [len(example.captions) for example in kept]
        return cls(
            vocabulary=vocabulary,
            names=tuple(example.name for example in kept),
            captions=tuple(example.captions for example in kept),
            features=tuple(views),
            rows=np.array([[view.row(example.name) for example in kept] for view in views], dtype=np.int64),
            tokens=pad_matrix(sequences, vocabulary.pad_id),
            lengths=np.array([len(sequence) for sequence in sequences], dtype=np.int64),
            offsets=np.concatenate([[0], np.cumsum(counts, dtype=np.int64)]),
            sources=tuple(example.source for example in kept),
            weights=_image_weights([example.source for example in kept], weights),
        )

    def by_source(self) -> dict[str, "CaptionTable"]:
        """Returns the table of each data set, in the order of their images."""
        found = {}
        for source in dict.fromkeys(self.sources):
            first = self.sources.index(source)
            images = slice(first, first + self.sources.count(source))
            captions = slice(self.offsets[images.start], self.offsets[images.stop])
            found[source] = replace(
                self,
                names=self.names[images],
                captions=self.captions[images],
                rows=self.rows[:, images],
                tokens=self.tokens[captions],
                lengths=self.lengths[captions],
                offsets=self.offsets[images.start : images.stop + 1] - captions.start,
                sources=self.sources[images],
                weights=self.weights[images],
            )
        return found

    @property
    def shares(self) -> dict[str, float]:
        """The share of each data set in what is drawn, from 0 to 1."""
        sources, total = np.array(self.sources), self.weights.sum()
        return {source: float(self.weights[sources == source].sum() / total) for source in dict.fromkeys(self.sources)}

    @property
    def mean_length(self) -> float:
        """Average number of tokens of a caption, weighted by how often its image is drawn."""
        return float(np.average(self.lengths, weights=np.repeat(self.weights, np.diff(self.offsets))))

    @property
    def sha256(self) -> str:
        """Fingerprint of images and captions: equal tables give equal batches."""
        digest = hashlib.sha256("\0".join(self.names).encode())
        for array in (self.offsets, self.tokens):
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()

    def gather(self, captions: np.ndarray, views: np.ndarray | None = None, share: Share = ALL) -> Batch:
        """Returns a share of the batch of the given captions, int64 (examples,), padded to the longest of them all.

        `views`, int64 (examples,), says which view of each image to take; without it the first.
        """
        longest, mine = self.lengths[captions].max(), share.of(len(captions))
        captions = captions[mine]
        images = self.images_of(captions)
        features = self.features_of(images, None if views is None else views[mine])
        return Batch(images, features, self.tokens[captions, :longest])

    def gather_shared(self, captions: np.ndarray, views: np.ndarray | None = None, share: Share = ALL) -> Batch:
        """Like `gather`, but with the captions sorted by length, each image's features once, and owners.

        The share is a share of the images. `views` is int64 (images,), for all images in ascending order.
        """
        captions = captions[np.argsort(self.lengths[captions], kind="stable")]
        longest = self.lengths[captions[-1]]
        kept, owners, counts = np.unique(self.images_of(captions), return_inverse=True, return_counts=True)
        mine = share.of_images(counts)
        own = (owners >= mine.start) & (owners < mine.stop)
        captions, owners, kept = captions[own], owners[own] - mine.start, kept[mine]
        features = self.features_of(kept, None if views is None else views[mine])
        return Batch(kept[owners], features, self.tokens[captions, :longest], owners)

    def images_of(self, captions: np.ndarray) -> np.ndarray:
        """Returns the positions of the images that captions are of, both int64 (examples,)."""
        return np.searchsorted(self.offsets, captions, side="right") - 1

    def features_of(self, images: np.ndarray, views: np.ndarray | None = None) -> np.ndarray:
        """Returns the features of images by position: float32 (images, ...).

        `views`, int64 (images,), says which view of each to take; without it the first.
        """
        if views is None or not len(views):
            return np.asarray(self.features[0][self.rows[0, images]], dtype=np.float32)
        found: np.ndarray | None = None
        for view in np.unique(views):
            chosen = views == view
            rows = self.features[view][self.rows[view, images[chosen]]]
            if found is None:
                found = np.empty((len(images), *rows.shape[1:]), np.float32)
            found[chosen] = rows
        assert found is not None
        return found

    def drawn(
        self, generator: np.random.Generator, batches: int, batch_size: int, bucket: int = 1, *, share: Share = ALL
    ) -> Iterator[Batch]:
        """Yields training batches, a share of each.

        They go through the images in shuffled rounds, in which each appears as often as its weight says on average,
        each time with its next caption and a random view. An image's captions are used in a random order, each once
        before any is repeated. Every `bucket` consecutive batches are sorted by length before they are cut and shuffled
        again: the same captions with less padding.
        """
        examples, images = batches * batch_size, len(self.names)
        order = np.concatenate([*islice(self._rounds(generator), -(-examples // images))])[:examples]
        earlier = _appearances(order)
        counts = np.diff(self.offsets)
        mixed = np.lexsort((generator.random(len(self.tokens)), np.repeat(np.arange(images), counts)))
        captions = mixed[self.offsets[order] + earlier % counts[order]]  # (examples,)
        captions = captions[np.lexsort((self.lengths[captions], np.arange(examples) // (bucket * batch_size)))]
        shuffled = np.lexsort((generator.random(batches), np.arange(batches) // bucket))
        captions = captions.reshape(batches, batch_size)[shuffled]
        views = generator.integers(0, len(self.features), size=captions.shape)
        for chosen, seen in zip(captions, views, strict=True):
            yield self.gather(chosen, seen, share)

    def _rounds(self, generator: np.random.Generator) -> Iterator[np.ndarray]:
        """Yields endless shuffled rounds, int64 (images,) each, with every image once, or as often as its weight says.

        An image of weight 2.5 is in a round two or three times, spread as evenly as possible. After any number of
        rounds its count is right to within less than its weight plus one.
        """
        images = len(self.names)
        due = np.zeros(images) if (self.weights == 1).all() else generator.random(images)
        ahead = np.empty(0, np.int64)
        while True:
            while len(ahead) < images:
                due += self.weights
                times = due.astype(np.int64)
                due -= times
                ahead = np.concatenate([ahead, generator.permutation(np.repeat(np.arange(images), times))])
            yield ahead[:images]
            ahead = ahead[images:]

    def whole_batches(self, batch_size: int) -> int:
        """Returns the number of batches to show every image once with all its captions, `batch_size` on average."""
        images = len(self.names)
        size = max(1, round(batch_size * images / len(self.tokens)))  # images that make as many captions
        return -(-images // size)

    def drawn_whole(
        self, generator: np.random.Generator, batches: int, batch_size: int, *, share: Share = ALL
    ) -> Iterator[Batch]:
        """Yields training batches of whole images, a share of each, in shuffled rounds: all captions, in a random view.

        A round has `whole_batches` batches, which differ by one image at most, with every image once, or as often as
        its weight says. An image that is in a batch twice has its captions twice and its features once.
        """
        parts, rounds = self.whole_batches(batch_size), self._rounds(generator)
        ahead: list[np.ndarray] = []
        for _ in range(batches):
            ahead = ahead or np.array_split(next(rounds), parts)
            chosen = np.sort(ahead.pop(0))
            captions = np.concatenate([np.arange(self.offsets[i], self.offsets[i + 1]) for i in chosen])
            views = generator.integers(0, len(self.features), size=len(np.unique(chosen)))
            yield self.gather_shared(captions, views, share)

    def sampled(
        self,
        generator: np.random.Generator,
        batches: int,
        batch_size: int,
        *,
        whole: bool = False,
        share: Share = ALL,
    ) -> Iterator[Batch]:
        """Yields validation batches, a share of each: different captions in shuffled order, each once.

        The last batch may be small, and a share of it empty. whole: in the order of the table, with the features of
        each image once.
        """
        chosen = generator.permutation(len(self.tokens))[: batches * batch_size]
        if whole:
            chosen.sort()
        for start in range(0, len(chosen), batch_size):
            captions = chosen[start : start + batch_size]
            yield self.gather_shared(captions, share=share) if whole else self.gather(captions, share=share)


def _image_weights(sources: Sequence[str], weights: Mapping[str, float] | None) -> np.ndarray:
    """Returns the weight of each image, float64 (images,), their mean being 1; a data set's images share its own."""
    if not weights:
        return np.ones(len(sources))
    counts = Counter(sources)
    found = np.array([weights[source] / counts[source] for source in sources])
    if not found.any():
        raise DataError("no image with a weight above 0 has both features and captions, so there is nothing to draw")
    found /= found.max()  # the sum of very large floats would overflow
    found /= found.mean()
    return np.ones(len(sources)) if np.allclose(found, 1) else found  # make equal weights exactly equal


def _appearances(order: np.ndarray) -> np.ndarray:
    """Returns how often each of some numbers, int64 (length,), occurred before: int64 (length,)."""
    places, counts = np.argsort(order, kind="stable"), np.bincount(order)
    earlier = np.empty_like(order)
    earlier[places] = np.arange(len(order)) - np.repeat(np.cumsum(counts) - counts, counts)
    return earlier
