"""Several data sets as one, each drawn as often as its weight says. Knows no layouts and no model."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from training.data.batches import Features
from training.data.datasets import open_dataset
from training.data.examples import DataError, DataReport, Dataset, Example


@dataclass(frozen=True, slots=True)
class Part:
    """A data set's folder (or a file of sentences) and its weight: how often it is drawn beside the others.

    Without a weight it is drawn as often as it has photographs.
    """

    path: Path
    weight: float | None = None

    @classmethod
    def parse(cls, text: str) -> "Part":
        """Reads "FOLDER" or "FOLDER=WEIGHT". Raises ValueError for a weight below 0 or one that is no number."""
        folder, equals, weight = text.rpartition("=")
        if not equals or Path(text).exists():
            return cls(Path(text))
        try:
            value = float(weight)
        except ValueError:
            raise ValueError(f"the weight of {folder} must be a number, but it is {weight!r}") from None
        if not 0 <= value < float("inf"):
            raise ValueError(f"the weight of {folder} must be a number from 0, but it is {weight}")
        return cls(Path(folder), value)

    @property
    def title(self) -> str:
        """The name by which scores and messages call this part: that of its folder or file."""
        return self.path.resolve().name

    def __str__(self) -> str:
        return f"{self.path}" if self.weight is None else f"{self.path}={self.weight:g}"


def check_parts(parts: Sequence[Part]) -> None:
    """Raises DataError where parts cannot be mixed: two of one name, weights for some only, or none above 0."""
    titles = [part.title for part in parts]
    if twice := sorted({title for title in titles if titles.count(title) > 1}):
        raise DataError(f"two data sets are called {', '.join(twice)}: rename a folder, as scores go by these names")
    weights = [part.weight for part in parts if part.weight is not None]
    if weights and len(weights) < len(parts):
        missing = ", ".join(part.title for part in parts if part.weight is None)
        raise DataError(f"{missing} has no weight and others have: give all a weight (FOLDER=WEIGHT) or none")
    if weights and not sum(weights):
        raise DataError("all weights are 0, so nothing would be drawn: give at least one a weight above 0")


def weighted(examples: Sequence[Example], part: Part, total: float) -> tuple[Example, ...]:
    """Returns a part's examples under its title, each with its share of the part's weight in a total of `total`."""
    share = 1.0 if part.weight is None else part.weight / total / len(examples)
    return tuple(
        replace(example, name=f"{part.title}/{example.name}", source=part.title, weight=share) for example in examples
    )


class Mixture:
    """Data sets one behind the other; an image is called TITLE/NAME."""

    def __init__(self, datasets: dict[str, Dataset], examples: Sequence[Example]) -> None:
        self._datasets = datasets
        self.examples = tuple(examples)
        first = next(iter(datasets.values())).report
        self.report = DataReport(" + ".join(each.report.source for each in datasets.values()), strict=first.strict)
        self.report.images = len(self.examples)
        self.report.captions = sum(len(example.captions) for example in self.examples)

    def read(self, name: str) -> bytes:
        """Returns an image's encoded bytes. Thread-safe. Raises OSError."""
        title, _, own = name.partition("/")
        return self._datasets[title].read(own)


def open_parts(parts: Sequence[Part], split: str, *, strict: bool = False) -> dict[str, Dataset]:
    """Opens a split of each part, by title. Raises DataError."""
    return {part.title: open_dataset(part.path, split, strict=strict) for part in parts}


def mix(parts: Sequence[Part], datasets: dict[str, Dataset], total: float) -> Dataset:
    """Returns opened parts as one data set; a single one without a weight stays as it is. total: of all weights."""
    if len(parts) == 1 and parts[0].weight is None:
        return datasets[parts[0].title]
    examples = [each for part in parts for each in weighted(datasets[part.title].examples, part, total)]
    return Mixture(datasets, examples)


def join(views: dict[str, Sequence[Features]], mixed: Dataset) -> tuple[Features, ...]:
    """Returns each view of the features of parts, by title, under the names that the mixture gives their images."""
    if not isinstance(mixed, Mixture):
        return tuple(next(iter(views.values())))
    return tuple(JoinedFeatures(view, tuple(views)) for view in zip(*views.values(), strict=True))


class JoinedFeatures:
    """Features of several stores as one, float32; with `titles` an image is called TITLE/NAME, as in a mixture."""

    def __init__(self, parts: Sequence[Features], titles: Sequence[str] = ()) -> None:
        self._parts = parts
        before = [f"{title}/" for title in titles] or [""] * len(parts)
        self.names = tuple(start + name for start, part in zip(before, parts, strict=True) for name in part.names)
        self._rows = {name: row for row, name in enumerate(self.names)}
        self._first = np.concatenate([[0], np.cumsum([len(part.names) for part in parts], dtype=np.int64)])
        self._own = np.array([part.row(name) for part in parts for name in part.names], dtype=np.int64)

    @property
    def matrix(self) -> Any:
        """Itself: `matrix[rows]` gives what an array would."""
        return self

    def row(self, name: str) -> int:
        """Row of an image. Raises KeyError."""
        return self._rows[name]

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        """Returns the features of rows, int64 (count,), at least one: (count, *shape) of the parts' common type."""
        which = np.searchsorted(self._first, rows, side="right") - 1
        values = {int(part): self._parts[part].matrix[self._own[rows[which == part]]] for part in np.unique(which)}
        shape = next(iter(values.values())).shape[1:]
        found = np.empty((len(rows), *shape), np.result_type(*values.values()))
        for part, value in values.items():
            found[which == part] = value
        return found
