"""Laws of grids made for sentences: the wanted mean, what is weaker stays where it is, what is new has a place."""

import numpy as np
import pytest

from training.data.text_grids import MOST, WordShares, changed, regions

HEIGHT, WIDTH, SIZE, WORDS = 9, 7, 20, 5


def draw(seed: int, *, signed: bool = False) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A grid that is mostly zeros, a wanted mean, and how much each word raises each feature."""
    generator = np.random.default_rng(seed)
    grid = generator.uniform(-2 if signed else 0, 2, (HEIGHT, WIDTH, SIZE)).astype(np.float32)
    grid[generator.random(grid.shape) < 0.8] = 0
    grid[..., 0] = 0  # a feature that is nowhere
    wanted = generator.uniform(-1 if signed else 0, 1, SIZE).astype(np.float32)
    return grid, wanted, generator.normal(size=(WORDS, SIZE)).astype(np.float32)


def make(grid: np.ndarray, wanted: np.ndarray, pulls: np.ndarray, seed: int = 0) -> np.ndarray:
    return changed(grid, grid.mean(axis=(0, 1)), wanted, pulls, np.random.default_rng(seed))


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_the_mean_is_the_wanted_one(seed: int, signed: bool) -> None:
    grid, wanted, pulls = draw(seed, signed=signed)
    for given in (pulls, pulls[:0], -np.abs(pulls)):  # several words; none; none that raises anything
        found = make(grid, wanted, given)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found.mean(axis=(0, 1)), wanted, atol=1e-5)


def test_what_becomes_weaker_stays_where_it_is_and_nothing_changes_its_sign() -> None:
    grid, wanted, pulls = draw(1)
    mean = grid.mean(axis=(0, 1))
    weaker = wanted < mean
    assert weaker.any()
    found = make(grid, wanted, pulls)
    np.testing.assert_allclose(found[..., weaker], grid[..., weaker] * (wanted[weaker] / mean[weaker]), atol=1e-6)
    assert found.min() >= 0


def test_what_becomes_stronger_is_raised_where_it_is_and_only_the_rest_lies_elsewhere() -> None:
    grid, _, pulls = draw(2)
    mean = grid.mean(axis=(0, 1))
    little = make(grid, mean * (MOST - 0.5), pulls)
    np.testing.assert_allclose(little, grid * (MOST - 0.5), atol=1e-5)
    much = make(grid, mean * MOST + 0.1, pulls)
    assert (much >= grid * MOST - 1e-5).all()


def test_a_new_feature_lies_in_the_region_of_its_word_where_something_went() -> None:
    grid = np.zeros((HEIGHT, WIDTH, 2), np.float32)
    grid[6, 2, 0] = HEIGHT * WIDTH  # the first feature goes, the second one comes
    found = make(grid, np.array([0, 0.5], np.float32), np.array([[0, 1]], np.float32))
    assert not found[..., 0].any()
    assert found[..., 1].argmax() == 6 * WIDTH + 2
    spread = found[..., 1].sum() ** 2 / (found[..., 1] ** 2).sum()
    assert 5 < spread < 50  # cells, of 63


def test_words_have_regions_of_their_own() -> None:
    grid = np.ones((HEIGHT, WIDTH, 3), np.float32)
    grid[..., 1:] = 0
    wanted, pulls = np.array([0, 0.5, 0.5], np.float32), np.array([[0, 1, 0], [0, 0, 1]], np.float32)
    found = make(grid, wanted, pulls)
    alike = [np.corrcoef(make(grid, wanted, pulls, seed)[..., 1:].reshape(-1, 2).T)[0, 1] for seed in range(20)]
    assert np.mean(alike) < 0.3
    one = make(grid, wanted, pulls.sum(axis=0, keepdims=True))
    np.testing.assert_allclose(one[..., 1], one[..., 2])
    np.testing.assert_array_equal(found, make(grid, wanted, pulls))
    assert (found != make(grid, wanted, pulls, 1)).any()


def test_a_region_is_a_bell_around_its_cell_with_a_mean_of_1() -> None:
    found = regions(np.array([0, 31]), np.array([0.9, 2.0]), HEIGHT, WIDTH)
    np.testing.assert_allclose(found.mean(axis=1), 1, atol=1e-6)
    assert found.argmax(axis=1).tolist() == [0, 31]
    bell = found[1].reshape(HEIGHT, WIDTH)
    np.testing.assert_allclose(bell[4, 3] / bell[5, 3], np.exp(1 / 8), rtol=1e-5)
    np.testing.assert_allclose(bell, bell[::-1, ::-1], rtol=1e-5)


def test_shares_without_zeros_differ_as_the_dense_ones_do() -> None:
    generator = np.random.default_rng(3)
    one, other = (generator.random((count, 12)) * (generator.random((count, 12)) < 0.4) for count in (6, 4))
    mine, theirs = WordShares.of([one[:2], one[2:]]), WordShares.of([other])
    for row in range(6):
        for beside in range(4):
            words, more = mine.difference(row, theirs, beside)
            assert set(words) == set(np.flatnonzero(one[row] + other[beside]))
            np.testing.assert_allclose(more, (one[row] - other[beside])[words], atol=1e-6)
