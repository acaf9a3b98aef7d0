"""How growth of memory is computed; that it stays flat is in tests/engine/test_nothing_lost.py."""

from benchmarks.harness.memory import Memory, growth


def test_growth_is_measured_from_the_peak_of_the_warm_up() -> None:
    samples = [Memory(100, 90, 100), Memory(200, 90, 120), Memory(300, 90, 150)]
    assert growth(samples, 200) == 0.25
