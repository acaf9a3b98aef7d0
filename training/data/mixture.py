"""Combines several data sets and their features into one. Knows no layouts and no model."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from training.data.batches import Features
from training.data.examples import DataError, Dataset, Example


@dataclass(frozen=True, slots=True)
class Part:
    """A data set's folder (or a file of sentences) and its weight: how often it is drawn relative to the others.

    The default weight is its number of photographs.
    """

    path: Path
    weight: float | None = None

    @classmethod
    def parse(cls, text: str) -> "Part":
        """Parses "FOLDER" or "FOLDER=WEIGHT"; a folder with "=" in its name is recognised if it exists.

        Raises ValueError for a weight that is negative or not a number.
        """
        folder, equals, weight = text.rpartition("=")
        if not equals or os.path.exists(text):  # noqa: PTH110 - Path.exists raises where a folder may not be looked into
            return cls(Path(text))
        if not folder:
            raise ValueError(f"a folder must come before the weight, but there is only {text!r}")
        try:
            value = float(weight)
        except ValueError:
            raise ValueError(f"the weight of {folder} must be a number, but it is {weight!r}") from None
        if not 0 <= value < float("inf"):
            raise ValueError(f"the weight of {folder} must be a number from 0, but it is {weight}")
        return cls(Path(folder), value)


def titles_of(parts: Sequence[Part]) -> dict[Part, str]:
    """Returns the title of each part in scores and image names: its folder or file, or "" for a single part.

    Raises DataError if parts cannot be mixed: equal names, weights for only some, or none above 0.
    """
    names = [part.path.resolve().name for part in parts]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise DataError(f"two data sets have the name {', '.join(twice)}: rename one; scores are reported by name")
    weights = [part.weight for part in parts if part.weight is not None]
    if weights and len(weights) < len(parts):
        missing = ", ".join(name for name, part in zip(names, parts, strict=True) if part.weight is None)
        raise DataError(f"{missing} has no weight but others do: give all of them a weight (FOLDER=WEIGHT) or none")
    if weights and not any(weights):
        raise DataError("all weights are 0, so nothing would be drawn: give at least one a weight above 0")
    return dict(zip(parts, names if len(parts) > 1 else [""], strict=True))


def titled(title: str, name: str) -> str:
    """Returns the name of a part's image in a mixture: TITLE/NAME, or just NAME if the part has no title."""
    return f"{title}/{name}" if title else name


def retitled(examples: Sequence[Example], title: str) -> tuple[Example, ...]:
    """Returns a part's examples with their names in the mixture."""
    return tuple(replace(example, name=titled(title, example.name), source=title) for example in examples)


class Mixture:
    """Concatenated data sets. The problems of each are in its own report."""

    def __init__(self, datasets: Mapping[str, Dataset]) -> None:
        """Takes data sets by title."""
        self.examples = tuple(
            example for title, dataset in datasets.items() for example in retitled(dataset.examples, title)
        )
        self._places = {
            titled(title, example.name): (dataset, example.name)
            for title, dataset in datasets.items()
            for example in dataset.examples
        }

    def read(self, name: str) -> bytes:
        """Returns an image's encoded bytes. Thread-safe. Raises OSError."""
        dataset, own = self._places[name]
        return dataset.read(own)


class JoinedFeatures(Features):
    """Concatenated features of several stores, under the names that `titled` gives."""

    def __init__(self, parts: Sequence[tuple[str, Features]]) -> None:
        self._parts = [part for _, part in parts]
        self.names = tuple(titled(title, name) for title, part in parts for name in part.names)
        self._first = np.concatenate([[0], np.cumsum([len(part.names) for part in self._parts], dtype=np.int64)])
        self._own = np.array([part.row(name) for part in self._parts for name in part.names], dtype=np.int64)

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        """See Features; the type is the parts' common one."""
        which = np.searchsorted(self._first, rows, side="right") - 1  # (count,)
        asked = np.unique(which).tolist() or [0]
        values = {part: self._parts[part][self._own[rows[which == part]]] for part in asked}
        found = np.empty((len(rows), *values[asked[0]].shape[1:]), np.result_type(*values.values()))
        for part, value in values.items():
            found[which == part] = value
        return found


def join(views: Mapping[str, Sequence[Features]]) -> tuple[Features, ...]:
    """Returns each view for all data sets together, from the views of each data set by title."""
    if [*views] == [""]:
        return tuple(views[""])
    return tuple(JoinedFeatures(list(zip(views, view, strict=True))) for view in zip(*views.values(), strict=True))
