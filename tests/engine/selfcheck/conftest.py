"""A provider that is the CPU under another name, and how often it is compared."""

from pathlib import Path
from typing import Any

import pytest

from engine.runtime import graphs as graphs_module
from engine.runtime import placement
from engine.runtime.graphs import Graphs
from engine.runtime.providers import PROVIDERS
from engine.runtime.sessions import open_session as open_real_session
from engine.selfcheck import compare as comparison
from engine.selfcheck import verify


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CAPTIONING_ENGINE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def other(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    """OpenVINO is here, and is the CPU under another name."""

    def open_session(folder: Path, graph: Any, provider: Any, options: Any) -> Any:
        return open_real_session(folder, graph, PROVIDERS["cpu"], options)

    monkeypatch.setattr(graphs_module, "open_session", open_session)
    monkeypatch.setattr(placement, "find_provider", lambda name: PROVIDERS[name])


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Notes each comparison."""
    noted: list[str] = []
    real = comparison.compare

    def compare(mine: Graphs, its: Graphs, batch_size: int) -> Any:
        noted.append(mine.placement.name)
        return real(mine, its, batch_size)

    monkeypatch.setattr(verify, "compare", compare)
    return noted
