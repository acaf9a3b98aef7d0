"""The soak test finds what it is there to find; the load test counts right."""

from collections import Counter
from typing import Any

import pytest

from benchmarks.http_load import share, table
from benchmarks.soak import judge, slope

SERVER = {f"caption_{name}_total": 5.0 for name in ("finished", "failed", "cancelled", "expired")}


def found(**changes: Any) -> dict[str, Any]:
    """Returns what a good run saw, with changes."""
    good = {
        "server": SERVER | {"caption_accepted_total": 20.0},
        "outcomes": {"refused": 3},
        "faults": [],
        "calls": 990,
        "calls_meant": 1000.0,
        "open_files": 24.0,
        "waiting": 0.0,
        "sent_ids": ["a", "b"],
        "lines": Counter("ab"),
        "exit_code": 0,
        "memory": [(float(second), 300e6, 20.0, 9.0) for second in range(600)],
    }
    return good | changes


def test_a_good_run_passes() -> None:
    assert all(judge(found()).values())


@pytest.mark.parametrize(
    "bad",
    [
        {"faults": ["single soak-1: 500"]},
        {"outcomes": {}},
        {"calls": 800},
        {"server": SERVER | {"caption_accepted_total": 21.0}},
        {"waiting": 1.0},
        {"lines": Counter("a")},
        {"lines": Counter("aab")},
        {"lines": Counter("abcc")},  # c's caller went away
        {"exit_code": 1},
        {"memory": [(float(second), 300e6 + 50e3 * second, 20.0, 9.0) for second in range(600)]},
        {"open_files": 200.0},
    ],
)
def test_each_fault_fails_one_check(bad: dict[str, Any]) -> None:
    assert list(judge(found(**bad)).values()).count(False) == 1


def test_the_slope_of_memory_is_that_after_the_warm_up() -> None:
    rising = [(float(second), 300e6 + 1e6 * (second < 100) + 1e3 * second, 20.0, 9.0) for second in range(600)]
    rises, error = slope(rising)
    assert rises == pytest.approx(3.6e6, rel=1e-3)
    assert error < 1e3


def test_the_share_of_times_is_that_of_all_requests() -> None:
    times = {10.0: 98, 20.0: 1, 500.0: 1}
    assert (share(times, 0.5), share(times, 0.99), share(times, 1.0)) == (10.0, 20.0, 500.0)


def test_the_table_shows_the_turn_in_the_middle() -> None:
    points = [
        {"server": "serving.http", "callers": 1, "rate": rate, "p50": 1.0, "p99": 2.0, "failures": 0}
        for rate in (3.0, 1.0, 2.0)
    ] + [{"server": "one at a time", "callers": 1, "rate": 1.0, "p50": 1.0, "p99": 2.0, "failures": 1}]
    assert "| 1 | serving.http | 2.0 | 1 | 2 | 0 |" in table(points)
    assert "| 1 | one at a time | 1.0 | 1 | 2 | 1 |" in table(points)
