"""What a captioned data set is: examples, the report of its faults, the interface. Knows no layout and no model."""

from dataclasses import dataclass, field
from typing import Protocol

SHOWN_PER_KIND = 5


@dataclass(frozen=True, slots=True)
class Example:
    """One image with its captions, at least one. `stamp` changes when the image's bytes do.

    `source` names the data set that it is of, where there are several.
    """

    name: str
    captions: tuple[str, ...]
    stamp: str = ""
    source: str = ""


@dataclass(slots=True)
class DataReport:
    """Every fault found in a data set, grouped by kind; `str` gives the text to print once all is read."""

    source: str
    strict: bool = False
    images: int = 0
    captions: int = 0
    faults: dict[str, dict[str, str]] = field(default_factory=dict)

    def add(self, kind: str, where: str, detail: str = "") -> None:
        """Notes a fault: its kind ("images without captions"), the place, why; the same one twice counts once."""
        self.faults.setdefault(kind, {})[where] = detail

    def counts(self) -> dict[str, int]:
        """Returns how many faults of each kind there are."""
        return {kind: len(places) for kind, places in self.faults.items()}

    def check(self) -> None:
        """Raises DataError with the whole report when faults were found and the report is strict."""
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
    """A data set that cannot be used: a layout not recognised, an unreadable list, or any fault under `strict`."""


class Dataset(Protocol):
    """Captioned images in a fixed order; an image's bytes are read on demand, from any number of threads."""

    @property
    def examples(self) -> tuple[Example, ...]:
        """The images that have captions and are there, in an order that depends on the data only."""

    @property
    def report(self) -> DataReport:
        """The faults found so far; whoever decodes the images adds the broken ones."""

    def read(self, name: str) -> bytes:
        """Returns an image's encoded bytes. Thread-safe. Raises OSError when they cannot be read."""
