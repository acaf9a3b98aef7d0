"""Laws of shared batches: all shares are the batch, and no process reads a row of another's."""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cached_property

import numpy as np
import pytest

from tests.training.shapes import VOCABULARY, make_examples, make_store
from training.data.batches import Batch, CaptionTable
from training.data.features import FeatureStore
from training.data.share import ALL, Share

VIEWS, IMAGES = 3, 10  # of one, two and three captions
Drawn = Callable[[CaptionTable, Share], Iterator[Batch]]

WAYS: dict[str, Drawn] = {
    "sorted": lambda table, share: table.drawn(np.random.default_rng(5), 9, 7, 4, share=share),
    "unsorted": lambda table, share: table.drawn(np.random.default_rng(5), 9, 7, share=share),
    "whole": lambda table, share: table.drawn_whole(np.random.default_rng(5), 9, 7, share=share),
    "validation": lambda table, share: table.sampled(np.random.default_rng(5), 9, 7, share=share),
    "whole validation": lambda table, share: table.sampled(np.random.default_rng(5), 9, 7, whole=True, share=share),
}
HASHES = {  # of the batches before there were shares
    "sorted": "b7330e16f6032c01",
    "unsorted": "60a297c0d1986709",
    "whole": "0b7ff63e8aa3283e",
    "validation": "4e69228119d99008",
    "whole validation": "7b4795ac63bda5a8",
}


class Counted(FeatureStore):
    """A view that counts how often each of its rows is read."""

    @cached_property
    def read(self) -> Counter[int]:
        return Counter()

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        self.read.update(rows.tolist())
        return super().__getitem__(rows)


def counted() -> tuple[CaptionTable, list[Counted]]:
    stores = [make_store(IMAGES, seed) for seed in range(VIEWS)]
    views = [Counted(store.names, store.matrix) for store in stores]
    return CaptionTable.build(make_examples(IMAGES), views, VOCABULARY, max_words=5), views


def reading(way: Drawn, share: Share = ALL) -> list[tuple[Batch, Counter[tuple[int, int]]]]:
    """Returns each batch beside what was read for it: how often which row of which view."""
    table, views = counted()
    found = []
    for batch in way(table, share):
        found.append((batch, Counter({(i, row): n for i, view in enumerate(views) for row, n in view.read.items()})))
        for view in views:
            view.read.clear()
    return found


def captions(batch: Batch) -> list[tuple[int, bytes, bytes]]:
    """Returns what a batch says of each of its examples, in order."""
    features = batch.features if batch.owners is None else batch.features[batch.owners]
    rows = zip(batch.images, features, batch.tokens, strict=True)
    return [(int(image), own.tobytes(), tokens.tobytes()) for image, own, tokens in rows]


# Who gets what


@pytest.mark.parametrize(("examples", "size"), [(64, 1), (64, 2), (7, 3), (1, 2)])
def test_shares_are_even_and_leave_nothing_out(examples: int, size: int) -> None:
    parts = [np.arange(examples)[Share(rank, size).of(examples)] for rank in range(size)]
    np.testing.assert_array_equal(np.concatenate(parts), np.arange(examples))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


@pytest.mark.parametrize("size", [1, 2, 3, 4, 8])
def test_shares_of_images_leave_none_out_and_no_process_without_one(size: int) -> None:
    generator = np.random.default_rng(size)
    lists = [generator.integers(1, 9, generator.integers(1, 30)) for _ in range(200)]
    for counts in [*lists, np.array([1, 1, 1, 99, 1, 1, 1, 1, 1]), np.array([99, *[1] * 8]), np.array([*[1] * 8, 99])]:
        parts = [np.arange(len(counts))[Share(rank, size).of_images(counts)] for rank in range(size)]
        np.testing.assert_array_equal(np.concatenate(parts), np.arange(len(counts)))
        assert min(map(len, parts)) >= 1 or len(counts) < size
        if size <= len(counts) // 3:  # where there is a choice, each is off by no more than half an image at each end
            assert max(counts[part].sum() for part in parts) <= counts.sum() / size + counts.max()


# What is read


@pytest.mark.parametrize("way", WAYS)
def test_one_process_alone_gets_what_it_always_got(way: str) -> None:
    digest = hashlib.sha256()
    for batch, _ in reading(WAYS[way]):
        for array in (batch.images, batch.features, batch.tokens, batch.owners):
            if array is not None:
                digest.update(f"{array.dtype}{array.shape}".encode() + np.ascontiguousarray(array).tobytes())
    assert digest.hexdigest()[:16] == HASHES[way]


@pytest.mark.parametrize("size", [2, 3, 4])
@pytest.mark.parametrize("way", WAYS)
def test_shares_are_the_batch_of_one_process_and_each_reads_the_rows_of_its_own_only(way: str, size: int) -> None:
    alone = reading(WAYS[way])
    shares = [reading(WAYS[way], Share(rank, size)) for rank in range(size)]
    for (batch, read), *parts in zip(alone, *shares, strict=True):
        held = [part for part, _ in parts]
        np.testing.assert_array_equal(np.concatenate([part.features for part in held]), batch.features)
        assert {part.tokens.shape[1] for part in held} == {batch.tokens.shape[1]}
        if batch.owners is None:
            assert [one for part in held for one in captions(part)] == captions(batch)
        else:
            assert Counter(one for part in held for one in captions(part)) == Counter(captions(batch))
        for part, own in parts:
            assert own.total() == len(part.features)
            assert {row for _, row in own} == set(part.images.tolist())  # rows are in the order of the images
        assert sum((own for _, own in parts), Counter()) == read
