"""Laws of the caption table and its batches."""

from collections import Counter

import numpy as np
import pytest

from tests.training.shapes import VOCABULARY, make_examples, make_store, make_table
from training.data.batches import Batch, CaptionTable
from training.data.examples import DataError


def test_a_gathered_batch_equals_its_captions_one_by_one() -> None:
    table, store = make_table(12), make_store(12)
    pairs = [(example.name, text) for example in make_examples(12) for text in example.captions]
    chosen = np.array([3, 0, 7, 7, 11])
    batch = table.gather(chosen)
    longest = max(len(VOCABULARY.encode(pairs[i][1], 5)) for i in chosen)
    assert batch.tokens.shape == (5, longest)
    for i, image, features, tokens in zip(chosen, batch.images, batch.features, batch.tokens, strict=True):
        name, text = pairs[i]
        assert table.names[image] == name
        np.testing.assert_array_equal(features, store.matrix[store.row(name)].astype(np.float32))
        assert [int(token) for token in tokens if token != VOCABULARY.pad_id] == VOCABULARY.encode(text, 5)


def test_validation_batches_show_different_captions_each_once() -> None:
    table = make_table(9)
    batches = list(table.sampled(np.random.default_rng(0), batches=100, batch_size=4))
    assert sum(len(batch.tokens) for batch in batches) == len(table.tokens)
    assert [len(batch.tokens) for batch in table.sampled(np.random.default_rng(0), 2, 4)] == [4, 4]


def test_every_view_of_an_image_is_trained_on() -> None:
    stores = [make_store(4), make_store(4, seed=5)]
    table = CaptionTable.build(make_examples(4), stores, VOCABULARY, max_words=5)
    views = np.array([0, 1, 1, 0])
    batch = table.gather(table.offsets[:4], views)
    for image, view in enumerate(views):
        np.testing.assert_array_equal(batch.features[image], stores[view].matrix[image].astype(np.float32))
    drawn = np.concatenate([b.features for b in table.drawn(np.random.default_rng(0), 10, 4)])
    assert len(np.unique(drawn, axis=0)) == 8


def test_images_without_features_are_left_out() -> None:
    table = CaptionTable.build(make_examples(6), [make_store(4)], VOCABULARY, max_words=5)
    assert table.names == ("00.jpg", "01.jpg", "02.jpg", "03.jpg")
    with pytest.raises(DataError, match="nothing to train on"):
        CaptionTable.build((), [make_store(4)], VOCABULARY, max_words=5)


def drawn(bucket: int, batches: int = 24, batch_size: int = 5, seed: int = 0) -> list[Batch]:
    return list(make_table(20).drawn(np.random.default_rng(seed), batches, batch_size, bucket))


def texts(batches: list[Batch]) -> Counter[tuple[int, str]]:
    return Counter(
        (int(image), VOCABULARY.decode(tokens.tolist()))
        for batch in batches
        for image, tokens in zip(batch.images, batch.tokens, strict=True)
    )


def padding(batches: list[Batch]) -> int:
    return sum(int((batch.tokens == VOCABULARY.pad_id).sum()) for batch in batches)


def test_sorting_by_length_neither_loses_nor_repeats_a_caption() -> None:
    assert texts(drawn(bucket=8)) == texts(drawn(bucket=1))


def test_sorting_by_length_takes_padding_away() -> None:
    assert padding(drawn(bucket=8)) < 0.5 * padding(drawn(bucket=1))
    lengths = [batch.tokens.shape[1] for batch in drawn(bucket=8)]
    assert lengths != sorted(lengths)  # and the lengths come in no order


def test_every_epoch_is_shuffled_anew_and_the_same_again() -> None:
    orders = [[tuple(batch.images) for batch in drawn(bucket=8, seed=seed)] for seed in (0, 1, 0)]
    assert orders[0] != orders[1]
    assert orders[0] == orders[2]
