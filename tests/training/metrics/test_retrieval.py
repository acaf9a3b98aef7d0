"""Recall of search: ranks against sorting by hand, and ties against the one who counts."""

import numpy as np
import pytest

from training.metrics.retrieval import Recall, image_ranks, text_ranks


def test_ranks_are_the_places_after_sorting() -> None:
    generator = np.random.default_rng(0)
    owners = np.concatenate([np.arange(7), generator.integers(0, 7, 12)])
    similarity = generator.normal(size=(19, 7))
    images = [sorted(range(7), key=lambda i: -similarity[text, i]).index(owners[text]) + 1 for text in range(19)]
    np.testing.assert_array_equal(image_ranks(similarity, owners), images)
    for image in range(7):
        order = sorted(range(19), key=lambda text: -similarity[text, image])
        first = next(place for place, text in enumerate(order, 1) if owners[text] == image)
        assert text_ranks(similarity, owners)[image] == first


def test_a_space_in_which_all_are_equal_finds_nothing() -> None:
    owners = np.repeat(np.arange(5), 2)
    assert image_ranks(np.ones((10, 5)), owners).tolist() == [5] * 10
    assert text_ranks(np.ones((10, 5)), owners).tolist() == [9] * 5


def test_recall_counts_ranks_up_to_a_number() -> None:
    recall = Recall.of(np.array([1, 1, 3, 6, 10, 11]))
    assert (recall.at_1, recall.at_5, recall.at_10, recall.median_rank) == (2 / 6, 3 / 6, 5 / 6, 4.5)
    assert recall.mean == pytest.approx(10 / 18)
