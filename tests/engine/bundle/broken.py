"""Ways to break a bundle, and what is then said of it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engine import BundleError
from engine.bundle.bundle import MANIFEST_FILE, VOCABULARY_FILE, Bundle

Edit = Callable[[dict[str, Any]], object]


def edit(folder: Path, change: Edit) -> None:
    """Rewrites the manifest after a change to its JSON."""
    data = json.loads((folder / MANIFEST_FILE).read_text(encoding="utf-8"))
    change(data)
    (folder / MANIFEST_FILE).write_text(json.dumps(data), encoding="utf-8")


def words(folder: Path, change: Callable[[list[str]], object]) -> None:
    """Rewrites the vocabulary after a change to its list."""
    data = json.loads((folder / VOCABULARY_FILE).read_text(encoding="utf-8"))
    change(data)
    (folder / VOCABULARY_FILE).write_text(json.dumps(data), encoding="utf-8")


def fault(folder: Path) -> str:
    """Returns the message with which a bundle is refused; it names the folder and is one line."""
    with pytest.raises(BundleError) as caught:
        Bundle.load(folder)
    message = str(caught.value)
    assert str(folder) in message
    assert "\n" not in message
    return message


def graph(data: dict[str, Any], name: str) -> dict[str, Any]:
    """Returns the manifest's entry of a graph."""
    return next(entry for entry in data["graphs"] if entry["graph"] == name)
