"""The time limits of start-up, relaxed on slow machines, where importing numpy and Pillow is slow too."""

from pathlib import Path

from benchmarks.startup import ALONE, BUDGETS, CAPTION, FLOOR, IMPORT, measure, over_budget, table


def test_the_engine_starts_within_its_budgets(bundle: Path | None) -> None:
    times = measure(3, bundle)
    told = table(times)
    assert times[IMPORT] < max(BUDGETS[IMPORT], 2.5 * times[FLOOR]), told
    assert times[CAPTION] < max(BUDGETS[CAPTION], 8 * times[FLOOR]), told
    assert all(name in told for name in times)


def test_what_is_over_budget_is_named() -> None:
    times = dict.fromkeys([*ALONE, CAPTION], 0.1)
    assert over_budget(times) == []
    times[CAPTION] = 1.6
    assert over_budget(times) == ["first caption takes 1.60 s, but the limit is 1.5 s"]
