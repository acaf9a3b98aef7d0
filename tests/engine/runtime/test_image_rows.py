"""Rows of context: every sentence reads its own image's, and no two images share one while both are read."""

from itertools import chain, pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from engine.runtime.image_rows import ImageRows, runs

steps = st.lists(st.tuples(st.integers(0, 4), st.lists(st.integers(0, 99), max_size=9)), max_size=12)


@given(steps, st.sampled_from([1, 4]))
def test_each_row_reads_the_context_of_its_own_image(steps: list[tuple[int, list[int]]], step: int) -> None:
    rows, written, owners, images = ImageRows(step), dict[int, int](), list[int](), 0
    for admitted, parents in steps:
        free = rows.free(admitted)
        live = {row: image for row, image in written.items() if image in owners}
        assert not live.keys() & set(free.tolist()), "a row in use is not free"
        assert not owners or (free % step == 0).all()
        assert free.max(initial=-1) < step * (len(set(owners)) + admitted), "the lowest rows are taken"
        written |= dict(zip(free.tolist(), range(images, images + admitted), strict=True))
        rows.assign(len(owners), free)
        owners += range(images, images + admitted)
        images += admitted
        chosen = [parent % len(owners) for parent in parents] if owners else []
        owners = [owners[parent] for parent in chosen]
        read = rows.follow(np.array(chosen, np.int64))
        assert [written[row] for row in read.tolist()] == owners


def test_rows_of_state_without_a_sentence_hold_no_context() -> None:
    rows = ImageRows()
    rows.assign(0, rows.free(2))
    rows.assign(4, rows.free(1))  # rows 2 and 3 are left out, as on a device that writes from some addresses only
    np.testing.assert_array_equal(rows.follow(np.array([4, 0, 1])), [2, 0, 1])
    rows.follow(np.array([1]))
    np.testing.assert_array_equal(rows.free(3), [1, 2, 3])


@given(st.sets(st.integers(0, 20)))
def test_runs_are_the_consecutive_numbers(numbers: set[int]) -> None:
    ordered = np.array(sorted(numbers), np.int64)
    parts = [ordered[part] for part in runs(ordered)]
    assert list(chain.from_iterable(part.tolist() for part in parts)) == sorted(numbers)
    assert all((np.diff(part) == 1).all() for part in parts)
    assert all(after[0] > before[-1] + 1 for before, after in pairwise(parts))
