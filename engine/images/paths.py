"""From arguments of a command line to image paths. Owns folders, globs and lists; opens no image."""

import glob
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from engine.images.formats import image_suffixes


@dataclass(slots=True)
class Scan:
    """Which files of folders are images, and which ones were left out. Hidden files are ignored."""

    names: frozenset[str] = field(default_factory=image_suffixes)
    """Suffixes of image files."""
    others: set[str] = field(default_factory=set)
    """Files with any other suffix."""
    irregular: set[str] = field(default_factory=set)
    """Pipes, devices and sockets: reading one that is named x.jpg might never end."""

    def takes(self, path: str) -> bool:
        """Returns whether a file is an image by its name; notes it if not. A broken link counts as its target would."""
        if Path(path).name.startswith("."):
            return False
        if Path(path).suffix.lower() not in self.names:
            self.others.add(path)
            return False
        if os.path.isfile(path) or not os.path.exists(path):  # noqa: PTH110, PTH113 - Path raises on some names
            return True  # opening a broken link will report it
        self.irregular.add(path)
        return False

    def __str__(self) -> str:
        """Returns how many files were left out and why, in one sentence; "" if there are none."""
        kinds = (self.others, "not named like an image"), (self.irregular, "no regular file")
        parts = [_counted(paths, why) for paths, why in kinds if paths]
        count = len(self.others) + len(self.irregular)
        return f"{count:,} {'file was' if count == 1 else 'files were'} left out: {'; '.join(parts)}" if count else ""


def _counted(paths: set[str], why: str) -> str:
    return f"{len(paths):,} are {why}, such as {min(paths)}" if len(paths) > 1 else f"{min(paths)} is {why}"


def expand(argument: str, listed: Iterable[bytes], scan: Scan | None = None) -> Iterator[str]:
    """Yields the paths that an argument names, in order; `scan` notes what was left out.

    A folder gives its image files, sorted, with those of subfolders but without hidden ones. A glob gives what a shell
    would make of it. "-" gives the paths in `listed`, one per line. Anything else is the path of a file; if there is
    none, opening it will report that.
    """
    scan = scan or Scan()
    if argument == "-":
        for line in listed:
            if path := os.fsdecode(line.rstrip(b"\r\n")):
                yield from _expand_name(path, scan)
    else:
        yield from _expand_name(argument, scan)


def _expand_name(name: str, scan: Scan) -> Iterator[str]:
    if any(sign in name for sign in "*?[") and not os.path.lexists(name):
        matches = sorted(glob.glob(name, recursive=True), key=_by_part)  # noqa: PTH207 - keeps names as given
        found = (path for match in matches for path in _expand_folder(match, scan))
        yield from dict.fromkeys(found) or [name]  # "**" matches a folder and what is in it
    else:
        yield from _expand_folder(name, scan)


def _expand_folder(name: str, scan: Scan) -> list[str]:
    if not os.path.isdir(name):  # noqa: PTH112 - Path.is_dir raises on names that no file can have
        return [name]
    unreadable: list[OSError] = []
    found: list[str] = []
    for folder, subfolders, files in os.walk(name, onerror=unreadable.append):
        subfolders[:] = [subfolder for subfolder in subfolders if not subfolder.startswith(".")]
        found += filter(scan.takes, (os.path.join(folder, file) for file in files))  # noqa: PTH118
    found += [os.fsdecode(error.filename) for error in unreadable]  # opening it will say why
    return sorted(found, key=_by_part)


def _by_part(path: str) -> tuple[str, ...]:
    return Path(path).parts
