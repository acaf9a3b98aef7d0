"""Arguments of a command line -> image paths. Owns folders, globs and lists; opens no image."""

import glob
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from engine.images.formats import image_suffixes


@dataclass(slots=True)
class Scan:
    """What is taken out of folders, and what is left in them; files whose names begin with a dot count as neither."""

    names: frozenset[str] = field(default_factory=image_suffixes)
    """What an image file ends in."""
    others: set[str] = field(default_factory=set)
    """Files that end in anything else."""
    irregular: set[str] = field(default_factory=set)
    """Pipes, devices and sockets: one that is called x.jpg may never end, or never begin."""

    def takes(self, path: str) -> bool:
        """Says whether a file is an image by its name, or a link to one, also one that leads nowhere; notes others."""
        if Path(path).name.startswith("."):
            return False
        if Path(path).suffix.lower() not in self.names:
            self.others.add(path)
            return False
        if os.path.isfile(path) or not os.path.exists(path):  # noqa: PTH110, PTH113 - Path raises on some names
            return True  # who opens a link that leads nowhere will tell
        self.irregular.add(path)
        return False

    def __str__(self) -> str:
        """Says how many files were left out and why, in one sentence; nothing where there are none."""
        kinds = (self.others, "not named like an image"), (self.irregular, "no regular file")
        parts = [_counted(paths, why) for paths, why in kinds if paths]
        count = len(self.others) + len(self.irregular)
        return f"{count:,} {'file was' if count == 1 else 'files were'} left out: {'; '.join(parts)}" if count else ""


def _counted(paths: set[str], why: str) -> str:
    return f"{len(paths):,} are {why}, such as {min(paths)}" if len(paths) > 1 else f"{min(paths)} is {why}"


def expand(argument: str, listed: Iterable[bytes], scan: Scan | None = None) -> Iterator[str]:
    """Yields the paths that an argument names, in order; `scan` then knows what was left out.

    A folder gives its image files, subfolders included, sorted, without hidden ones. A glob gives what the shell
    would make of it. "-" gives the paths in `listed`, one a line. Anything else is the path of one file, there or
    not: whoever opens it will tell.
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
        matches = sorted(glob.glob(name, recursive=True), key=_by_part)  # noqa: PTH207 - keeps names as they were given
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
