"""Captioned data sets: examples, the report of problems, the interface. Knows no layout and no model."""

from dataclasses import dataclass, field
from typing import Protocol

SHOWN_PER_KIND = 5


@dataclass(frozen=True, slots=True)
class Example:
    """One image with its captions, at least one. `stamp` changes when the image's bytes do.

    `source` is its data set, if there are several.
    """

    name: str
    captions: tuple[str, ...]
    stamp: str = ""
    source: str = ""


@dataclass(slots=True)
class DataReport:
    """All problems found in a data set, grouped by kind; `str` gives the text to print at the end."""

    source: str
    strict: bool = False
    images: int = 0
    captions: int = 0
    faults: dict[str, dict[str, str]] = field(default_factory=dict)

    def add(self, kind: str, where: str, detail: str = "") -> None:
        """Adds a problem: its kind ("images without captions"), the place, why. Duplicates count once."""
        self.faults.setdefault(kind, {})[where] = detail

    def counts(self) -> dict[str, int]:
        """Returns the number of problems of each kind."""
        return {kind: len(places) for kind, places in self.faults.items()}

    def check(self) -> None:
        """Raises DataError with the whole report if problems were found and the report is strict."""
        if self.strict and self.faults:
            raise DataError(str(self))

    def __str__(self) -> str:
        total = sum(self.counts().values())
        lines = [f"{self.source}: {self.images:,} images, {self.captions:,} captions, {total:,} faults"]
        for kind, places in self.faults.items():
            shown = [f"{where}: {why}" if why else where for where, why in places.items()][:SHOWN_PER_KIND]
            more = ", …" if len(places) > len(shown) else ""
            lines.append(f"  {kind}: {len(places):,} ({', '.join(shown)}{more})")
        return "\n".join(lines)


class DataError(ValueError):
    """A data set that cannot be used: unknown layout, unreadable list, or any problem under `strict`."""


class Dataset(Protocol):
    """Captioned images in a fixed order; an image's bytes are read on demand, from any number of threads."""

    @property
    def examples(self) -> tuple[Example, ...]:
        """The existing images that have captions, in an order that depends only on the data."""

    @property
    def report(self) -> DataReport:
        """The problems found so far; the code that decodes the images adds broken ones."""

    def read(self, name: str) -> bytes:
        """Returns an image's encoded bytes. Thread-safe. Raises OSError when they cannot be read."""
