import numpy as np

from engine.search.store import Changes
from engine.search.table import VectorTable, as_direction, best

SIZE = 16


def drawn(count: int, seed: int = 0) -> np.ndarray:
    vectors = np.random.default_rng(seed).standard_normal((count, SIZE)).astype(np.float32)
    unit: np.ndarray = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit


def changes(revision: int, ids: list[int], vectors: np.ndarray, living: list[bool] | None = None) -> Changes:
    return Changes(revision, np.array(ids, np.int64), np.array(living or [True] * len(ids)), as_direction(vectors))


def test_stored_directions_keep_cosines_to_a_hundredth() -> None:
    vectors = drawn(200)
    table = VectorTable(SIZE)
    table.update(changes(1, list(range(1, 201)), vectors))
    assert np.abs(table.similarities(vectors[7]) - vectors @ vectors[7]).max() < 0.01
    np.testing.assert_allclose(np.linalg.norm(table.vectors, axis=1), 1, atol=1e-6)


def test_a_table_that_is_updated_is_the_table_of_all_at_once() -> None:
    vectors = drawn(30)
    parts, whole = VectorTable(SIZE), VectorTable(SIZE)
    parts.update(changes(1, list(range(1, 21)), vectors[:20]))
    parts.update(changes(2, [5, 21, 22], np.stack([vectors[22], vectors[20], vectors[21]])))
    newest = vectors[:22].copy()
    newest[4] = vectors[22]
    whole.update(changes(2, list(range(1, 23)), newest))
    np.testing.assert_array_equal(parts.ids, whole.ids)
    np.testing.assert_array_equal(parts.vectors, whole.vectors)
    assert parts.revision == 2


def test_photographs_without_a_file_are_like_nothing() -> None:
    table = VectorTable(SIZE)
    table.update(changes(1, [1, 2, 3], drawn(3), [True, False, True]))
    assert len(table) == 2
    assert np.isneginf(table.similarities(drawn(1)[0])[1])
    assert table.ids[table.rows_of([3, 2, 9, 1])].tolist() == [3, 1]


def test_a_bundle_without_vectors_has_a_table_of_ids() -> None:
    table = VectorTable(0)
    table.update(changes(1, [4, 5], np.empty((2, 0), np.float32)))
    assert len(table) == 2


def test_a_vector_of_zeros_stays_one() -> None:
    table = VectorTable(SIZE)
    table.update(changes(1, [1], np.zeros((1, SIZE), np.float32)))
    assert not table.vectors.any()


def test_the_best_are_those_that_sorting_finds_and_equal_ones_keep_their_order() -> None:
    generator = np.random.default_rng(1)
    for count in (1, 3, 10, 50, 80):
        scores = generator.integers(0, 20, 50).astype(np.float32)
        scores[generator.integers(0, 50, 5)] = -np.inf
        expected = [i for i in sorted(range(50), key=lambda i: (-scores[i], i)) if np.isfinite(scores[i])][:count]
        assert best(scores, count).tolist() == expected
