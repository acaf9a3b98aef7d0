"""The competitors, made once, on the bundle that ships."""

import pytest

from benchmarks.harness.competitors import Competitors


@pytest.fixture(scope="session")
def competitors() -> Competitors:
    return Competitors(most=8)
