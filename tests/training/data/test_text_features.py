"""Laws of features made of words: ridge regression's mean, real photographs' residuals, the range of real features."""

import numpy as np
import pytest

from engine.bundle.vocabulary import Vocabulary, split
from training.data import text_features as module
from training.data.examples import DataError, Example
from training.data.features import FeatureStore
from training.data.text_features import RIDGE, TextFeatures, text_features

WORDS = ("dog", "cat", "man", "runs", "sits", "red", "big", "here")
SIZE, PHOTOGRAPHS, SENTENCES = 6, 30, 11


def make_captions(count: int, seed: int) -> list[Example]:
    generator = np.random.default_rng(seed)
    return [
        Example(
            f"{index}.jpg",
            tuple(" ".join(generator.choice(WORDS, 4)) for _ in range(1 + index % 3)),
        )
        for index in range(count)
    ]


DESCRIBED, SAID = make_captions(PHOTOGRAPHS, 0), [*make_captions(SENTENCES, 1), Example("new.jpg", ("unheard of",))]
VOCABULARY = Vocabulary.build((caption for example in DESCRIBED for caption in example.captions), min_count=1)


def make_views(count: int = 2) -> list[FeatureStore]:
    names = tuple(example.name for example in reversed(DESCRIBED))  # in another order than the captions
    generator = np.random.default_rng(2)
    return [FeatureStore(names, generator.normal(size=(PHOTOGRAPHS, SIZE)).astype(np.float16)) for _ in range(count)]


def make_grids() -> list[FeatureStore]:
    generator = np.random.default_rng(4)
    shape = PHOTOGRAPHS, 2, 3, SIZE
    return [FeatureStore(view.names, generator.uniform(0, 2, shape).astype(np.float16)) for view in make_views()]


def make(seed: int = 0, said: list[Example] = SAID) -> tuple[TextFeatures, ...]:
    return text_features(said, DESCRIBED, make_views(), VOCABULARY, seed=seed)


def shares(examples: list[Example]) -> np.ndarray:
    """The share of each example's captions that hold each word."""
    return np.array(
        [
            [np.mean([word in split(caption) for caption in example.captions]) for word in VOCABULARY.words]
            for example in examples
        ]
    )


def test_the_mean_is_what_ridge_regression_says_of_the_words() -> None:
    average = np.mean([view.matrix.astype(float) for view in make_views()], axis=0)[::-1]
    centre = average.mean(axis=0)
    # lstsq knows no penalty: rows of its root that ask for weights of nothing are the same
    rows = np.concatenate([shares(DESCRIBED), np.sqrt(RIDGE) * np.eye(len(VOCABULARY))])
    wanted = np.concatenate([average - centre, np.zeros((len(VOCABULARY), SIZE))])
    weights = np.linalg.lstsq(rows, wanted, rcond=None)[0]
    for view in make():
        np.testing.assert_allclose(view.means, centre + shares(SAID) @ weights, atol=2e-3)
    np.testing.assert_allclose(view.means[-1], centre, atol=2e-3)  # of words that nobody knows


def test_photographs_taken_in_parts_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = make()
    monkeypatch.setattr(module, "AT_ONCE", 7)
    for one, other in zip(whole, make(), strict=True):
        np.testing.assert_allclose(one.means, other.means, atol=2e-3)
        np.testing.assert_array_equal(one.drawn, other.drawn)


def test_a_photographs_own_residual_restores_its_features() -> None:
    for made, view in zip(make(said=DESCRIBED), make_views(), strict=True):
        made.drawn[:] = np.arange(PHOTOGRAPHS)
        rows = np.array([made.row(name) for name in view.names])
        np.testing.assert_allclose(made[rows], view.matrix, atol=4e-3)


def test_each_sentence_has_a_photographs_residual_another_one_in_each_view() -> None:
    views = make()
    for view in views:
        assert set(view.drawn) <= set(range(PHOTOGRAPHS))
        found = view[np.arange(len(SAID))]
        wanted = view.means.astype(np.float32) + view.residuals[view.drawn]
        np.testing.assert_array_equal(found, np.clip(wanted, *view.limits))
    assert (views[0].drawn != views[1].drawn).any()


def test_a_sentences_grid_has_the_mean_that_is_its_vector_within_the_limits_of_real_cells() -> None:
    views = make_grids()
    vectors = [FeatureStore(view.names, view.matrix.astype(np.float32).mean(axis=(1, 2))) for view in views]
    flat = text_features(SAID, DESCRIBED, vectors, VOCABULARY, seed=3)
    every = np.arange(len(SAID))
    for made, plain, view in zip(text_features(SAID, DESCRIBED, views, VOCABULARY, seed=3), flat, views, strict=True):
        grids = made[every]
        assert grids.dtype == np.float32
        assert view.matrix.min() <= grids.min()
        assert grids.max() <= view.matrix.max()
        clipped = (grids == view.matrix.max()).any(axis=(1, 2))
        assert clipped.mean() < 0.5
        np.testing.assert_allclose(grids.mean(axis=(1, 2))[~clipped], plain[every][~clipped], atol=1e-3)
        assert (grids.mean(axis=(1, 2)) < plain[every] + 1e-3).all()
        for row in every:  # a grid does not depend on those beside it
            np.testing.assert_array_equal(made[every[[row]]][0], grids[row])


def test_what_raises_a_sentences_grid_are_the_words_that_its_lender_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    views = make_grids()
    means = [view.matrix.astype(np.float64).mean(axis=(1, 2))[::-1] for view in views]
    centred = np.mean(means, axis=0) - np.mean(means, axis=(0, 1))
    rows = np.concatenate([shares(DESCRIBED), np.sqrt(RIDGE) * np.eye(len(VOCABULARY))])
    weights = np.linalg.lstsq(rows, np.concatenate([centred, np.zeros((len(VOCABULARY), SIZE))]), rcond=None)[0]
    given: list[np.ndarray] = []

    def changed(grid: np.ndarray, mean: np.ndarray, wanted: np.ndarray, pulls: np.ndarray, _: object) -> np.ndarray:
        given.append(pulls.sum(axis=0))
        return grid

    monkeypatch.setattr(module, "changed", changed)
    made = text_features(SAID, DESCRIBED, views, VOCABULARY, seed=3)[1]
    made[np.arange(len(SAID))]
    more = shares(SAID) - shares(DESCRIBED)[made.drawn]
    np.testing.assert_allclose(given, more @ weights, atol=1e-3)
    assert np.abs(more).max() > 0.3


def test_the_same_seed_makes_the_same_features() -> None:
    every = np.arange(len(SAID))
    one, same, other = (make(seed)[1][every] for seed in (4, 4, 5))
    np.testing.assert_array_equal(one, same)
    assert (one != other).any()


def test_nothing_lies_outside_the_range_of_real_features() -> None:
    views = make()
    real = np.stack([view.matrix for view in make_views()])
    for view in views:
        view.means[0], view.means[1] = 9, -9
        found = view[np.arange(len(SAID))]
        assert found.dtype == np.float32
        assert real.min() <= found.min() < found.max() <= real.max()


def test_photographs_without_features_explain_nothing() -> None:
    views = make_views()
    kept = views[0].names[:-5]
    short = [FeatureStore(kept, view.matrix[:-5]) for view in views]
    found = text_features(SAID, DESCRIBED, short, VOCABULARY)
    alone = text_features(SAID, DESCRIBED[5:], short, VOCABULARY)
    for one, other in zip(found, alone, strict=True):
        np.testing.assert_array_equal(one.means, other.means)
        np.testing.assert_array_equal(one.residuals, other.residuals)
    none = [FeatureStore((), view.matrix[:0]) for view in views]
    with pytest.raises(DataError, match="no photograph has features"):
        text_features(SAID, DESCRIBED, none, VOCABULARY)
