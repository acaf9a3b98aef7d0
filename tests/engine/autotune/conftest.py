"""A processor that sums 8-bit products."""

import pytest

from engine.autotune import measure


@pytest.fixture(autouse=True)
def with_vnni(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "has_vnni", lambda: True)
