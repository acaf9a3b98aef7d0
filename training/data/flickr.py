"""A folder with captions.csv (image,caption), train.txt and val.txt, and images/: the layout of Flickr8k."""

import csv
from pathlib import Path

from engine.bundle.vocabulary import split as split_words
from training.data.examples import DataError, DataReport, Example

HEADER = ["image", "caption"]


class FlickrDataset:
    """The images in a split list, in its order."""

    def __init__(self, folder: Path, split: str, report: DataReport) -> None:
        """Reads the lists; faults go to the report. Raises DataError when a list is missing or unreadable."""
        self.report = report
        self.images = folder / "images"
        if not self.images.is_dir():
            raise DataError(f"{folder} has captions.csv but no folder images/ with the photographs")
        stamps = {}
        for file in self.images.iterdir():
            stat = file.stat()
            stamps[file.name] = f"{stat.st_size}-{stat.st_mtime_ns}"
        captions = self._captions(folder / "captions.csv", stamps)
        names = self._names(folder / f"{split}.txt", stamps)
        for name in names:
            if name not in captions:
                report.add("images without captions", name)
        self.examples = tuple(Example(name, tuple(captions[name]), stamps[name]) for name in names if name in captions)

    def read(self, name: str) -> bytes:
        """Returns an image's encoded bytes. Thread-safe. Raises OSError."""
        return (self.images / name).read_bytes()

    def _names(self, path: Path, present: dict[str, str]) -> list[str]:
        listed = dict.fromkeys(line.strip() for line in _lines(path) if line.strip())
        for name in listed:
            if name not in present:
                self.report.add(f"names in {path.name} without an image", name)
        return [name for name in listed if name in present]

    def _captions(self, path: Path, present: dict[str, str]) -> dict[str, list[str]]:
        lines = _lines(path)
        if not lines or _fields(lines[0]) != HEADER:
            raise DataError(f"{path} does not begin with the line {','.join(HEADER)!r}")
        captions: dict[str, list[str]] = {}
        for number, line in enumerate(lines[1:], start=2):
            if not line.strip():
                continue
            fields = _fields(line)
            if len(fields) != len(HEADER) or not fields[0]:
                self.report.add("broken rows in captions.csv", f"line {number}", repr(line[:40]))
                continue
            name, caption = fields[0], fields[1].strip()
            where = f"line {number} ({name})"
            if not split_words(caption):
                self.report.add("empty captions", where)
            elif name not in present:
                self.report.add("captions whose image is missing", where)
            else:
                captions.setdefault(name, []).append(caption)
        return captions


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read as UTF-8 text: {error}") from error


def _fields(line: str) -> list[str]:
    # Line by line, so that an unclosed quote breaks only its own row.
    try:
        return next(csv.reader([line.rstrip("\r")], strict=True), [])
    except csv.Error:
        return []
