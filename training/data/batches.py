"""Captions as one padded matrix beside their images' features; batches are gathers from it. Knows nothing of models.

Every process draws the same plan of all batches and gathers nothing but its own share of each.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from engine.bundle.vocabulary import Vocabulary, pad_matrix
from training.data.examples import DataError
from training.data.share import ALL, Share


class Features(Protocol):
    """Features of images by name: what `training.data.features.FeatureStore` offers."""

    @property
    def names(self) -> Sequence[str]:
        """Names of the images that have features."""

    @property
    def matrix(self) -> np.ndarray:
        """All features, float16 (images, feature_size)."""

    def row(self, name: str) -> int:
        """Row of an image in the matrix."""


class Captioned(Protocol):
    """An image's name and its captions: what `training.data.datasets.Example` offers."""

    @property
    def name(self) -> str:
        """The image's name."""

    @property
    def captions(self) -> tuple[str, ...]:
        """Its captions, any number."""

    @property
    def source(self) -> str:
        """The data set it is of, where there are several."""

    @property
    def weight(self) -> float:
        """How often it is drawn beside others."""


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Images beside one caption each."""

    images: np.ndarray  # int64 (examples,): positions in the table's names
    features: np.ndarray  # float32 (examples, feature_size), or (images, ...) with owners
    tokens: np.ndarray  # int64 (examples, longest): START, words, END, padding
    owners: np.ndarray | None = None  # int64 (examples,): each one's row in features, where images share them


@dataclass(frozen=True, slots=True, eq=False)
class CaptionTable:
    """All captions of a split, encoded once, in the order of their images."""

    vocabulary: Vocabulary
    names: tuple[str, ...]  # of the images with features and captions
    captions: tuple[tuple[str, ...], ...]  # per image
    features: tuple[np.ndarray, ...]  # per view of the images: float16 (rows, feature_size), a memory map as a rule
    rows: np.ndarray  # int64 (views, images): each image's row in the features of a view
    tokens: np.ndarray  # int64 (captions, longest)
    lengths: np.ndarray  # int64 (captions,): tokens without padding
    offsets: np.ndarray  # int64 (images + 1,): each image's first caption
    sources: tuple[str, ...]  # per image: its data set
    weights: np.ndarray  # float64 (images,): how often each is drawn beside others

    @classmethod
    def build(
        cls, examples: Sequence[Captioned], views: Sequence[Features], vocabulary: Vocabulary, max_words: int
    ) -> "CaptionTable":
        """Encodes the captions of every example that has features in all views, such as plain and mirrored.

        Raises DataError when none has.
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
            features=tuple(view.matrix for view in views),
            rows=np.array([[view.row(example.name) for example in kept] for view in views], dtype=np.int64),
            tokens=pad_matrix(sequences, vocabulary.pad_id),
            lengths=np.array([len(sequence) for sequence in sequences], dtype=np.int64),
            offsets=np.concatenate([[0], np.cumsum(counts, dtype=np.int64)]),
            sources=tuple(example.source for example in kept),
            weights=np.array([example.weight for example in kept]),
        )

    def by_source(self) -> dict[str, "CaptionTable"]:
        """Returns the table of each data set, in the order of their images, which stand together."""
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
        """As `gather`, the captions sorted by length, with the features of each image once, and owners.

        Its share is one of images. `views`, int64 (images,), of all the images in ascending order.
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
        """Returns the features of images by position: float32 (images, feature_size).

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

        They show the images in shuffled rounds, in which each comes as often as its weight says on average, each time
        with its next caption and any view. An image's captions take turns in an order drawn anew, so that none comes
        twice before all came once. Every `bucket` batches in a row are sorted by length before they are cut and
        shuffled again: the same captions, less padding.
        """
        examples, images = batches * batch_size, len(self.names)
        order = self._rounds(generator, examples)
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

    def _rounds(self, generator: np.random.Generator, length: int) -> np.ndarray:
        """Returns images in shuffled rounds, int64 (length,), each as often as its weight: once a round if all are 1.

        An image of weight 2.5 comes twice in some rounds and three times in others, as evenly as can be.
        """
        images = len(self.names)
        if np.all(self.weights == 1):
            rounds = np.tile(np.arange(images), (-(-length // images), 1))
            return generator.permuted(rounds, axis=1).ravel()[:length]
        share = self.weights * (images / self.weights.sum())
        due = generator.random(images)
        order: list[np.ndarray] = []
        while sum(map(len, order)) < length:
            due += share
            times = np.floor(due).astype(np.int64)
            due -= times
            order.append(generator.permutation(np.repeat(np.arange(images), times)))
        return np.concatenate(order)[:length]

    def whole_batches(self, batch_size: int) -> int:
        """Returns the batches that show every image once, with all its captions: `batch_size` of them on average."""
        images = len(self.names)
        size = max(1, round(batch_size * images / len(self.tokens)))  # images that make as many captions
        return -(-images // size)

    def drawn_whole(
        self, generator: np.random.Generator, batches: int, batch_size: int, *, share: Share = ALL
    ) -> Iterator[Batch]:
        """Yields training batches of whole images, a share of each, in shuffled rounds: all captions, in any one view.

        A round has `whole_batches`, which differ by one image at most, and shows every image once, or as often as its
        weight says.
        """
        images, parts = len(self.names), self.whole_batches(batch_size)
        ahead: list[np.ndarray] = []
        for _ in range(batches):
            ahead = ahead or np.array_split(self._rounds(generator, images), parts)
            chosen = np.unique(ahead.pop(0))  # an image drawn twice for a batch is shown once
            captions = np.concatenate([np.arange(self.offsets[i], self.offsets[i + 1]) for i in chosen])
            yield self.gather_shared(captions, generator.integers(0, len(self.features), size=len(chosen)), share)

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

        The last batch may be small, and a share of it nothing. whole: in the order of the table, with the features of
        each image once.
        """
        chosen = generator.permutation(len(self.tokens))[: batches * batch_size]
        if whole:
            chosen.sort()
        for start in range(0, len(chosen), batch_size):
            captions = chosen[start : start + batch_size]
            yield self.gather_shared(captions, share=share) if whole else self.gather(captions, share=share)


def _appearances(order: np.ndarray) -> np.ndarray:
    """Returns how often each of some numbers, int64 (length,), stood before: int64 (length,)."""
    sorted_places = np.argsort(order, kind="stable")
    starts = np.flatnonzero(np.diff(order[sorted_places], prepend=-1))
    counts = np.arange(len(order)) - np.repeat(starts, np.diff(starts, append=len(order)))
    earlier = np.empty(len(order), np.int64)
    earlier[sorted_places] = counts
    return earlier
