"""The competitors, made once, on the bundle that ships."""

import pytest

from benchmarks.harness.competitors import Sides


@pytest.fixture(scope="session")
def sides() -> Sides:
    return Sides(most=8)
