"""Paths and URIs that a bulk run reads and writes: how to open them, how to show them, which files are there.

Knows no images, no captions and no Ray.
"""

import os
import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pyarrow as pa
from pyarrow.fs import FileSelector, FileSystem, FileType, LocalFileSystem

from engine import OptionsError

KEYS = re.compile(r"(?<=://)(?:[^/?#]*|[^/?#:]*:(?!\d+/)[^?#]*)@|\?[^#]*|#.*", re.DOTALL)
"""The parts of a URI that may contain a key, even one with slashes that should have been written as %2F."""
ESCAPED = re.compile(r"\\x[89a-f][0-9a-f]")
"""How `files_in` writes a byte that is not UTF-8."""


def locate(place: str) -> tuple[FileSystem, str]:
    """Returns the file system of a URI or a path, and the path in it. Raises OptionsError."""
    if "://" not in place:
        return LocalFileSystem(), str(Path(place).absolute())
    try:
        uri = urlsplit(place)
        system, root = connected(uri._replace(path="/", fragment="").geturl())
    except (pa.ArrowException, OSError, ValueError) as error:
        why = one_line(error)
        if shown(place) != place:
            why = re.split("[:'\"]", why)[0]  # the rest quotes the URI
        raise OptionsError(f"{shown(place)} cannot be reached: {why}") from error
    return system, f"{root.rstrip('/')}{unquote(uri.path)}".rstrip("/")


@lru_cache(64)
def connected(uri: str) -> tuple[FileSystem, str]:
    """Connects once to each bucket: a table may name millions of images in it."""
    system, path = FileSystem.from_uri(uri)
    return system, str(path)


def shown(place: str) -> str:
    """Returns a path or URI for messages and records: without user, password and query, which may be keys."""
    return KEYS.sub("", place) if "://" in place else place


def one_line(error: BaseException) -> str:
    """Returns the message of an error on one line."""
    return " ".join(str(error).split()) or type(error).__name__


def inside(outer: str, inner: str) -> str | None:
    """Returns the path of one place in another, "" if both are the same, None if it is elsewhere."""
    (system, root), (other, path) = locate(outer), locate(inner)
    if system.type_name != other.type_name or not f"{path}/".startswith(f"{root.rstrip('/')}/"):
        return None
    return path[len(root) :].strip("/")


def files_in(place: str, hidden: str, irregular: list[str] | None = None) -> list[str]:
    """Returns the files in a folder and its subfolders by their paths in it, in any order; of one file, "".

    hidden: names that begin with one of these characters are left out. irregular: receives the paths of pipes, devices
    and sockets, which are left out too. On this machine's own file system, a folder with links to it is entered once; a
    broken link counts as a file, so that reading it gives an error; and a byte that is not UTF-8 becomes the letters
    \\xE9. Raises OptionsError.
    """
    system, root = locate(place)
    try:
        there = system.get_file_info(root)
        if there.type == FileType.NotFound:
            raise OptionsError(f"there is no {shown(place)}")
        if there.type == FileType.File:
            return [""]
        if isinstance(system, LocalFileSystem):
            found: tuple[list[str], list[str]] = [], [] if irregular is None else irregular
            for path, is_regular in _walk(root, tuple(hidden)):
                found[not is_regular].append(os.fsencode(path).decode(errors="backslashreplace"))
            return found[0]
        infos = system.get_file_info(FileSelector(root, recursive=True))
        paths = [info.path[len(root) + 1 :] for info in infos if info.type == FileType.File]
    except (pa.ArrowException, OSError, UnicodeError) as error:
        raise OptionsError(f"{shown(place)} cannot be listed: {one_line(error)}") from error
    return [path for path in paths if not any(name.startswith(tuple(hidden)) for name in path.split("/"))]


def _walk(root: str, hidden: tuple[str, ...]) -> Iterator[tuple[str, bool]]:
    """Yields the files, and for each whether it is a regular file, a link to one or a broken link.

    Links to folders are followed last and in order, so that a folder has the same path in every run.
    """
    seen: set[tuple[int, int]] = set()
    folders = [""]
    links: list[str] = []
    while folders or links:
        links.sort(reverse=True)
        folder = (folders or links).pop()
        found = Path(root, folder).stat()
        if (found.st_dev, found.st_ino) in seen:
            continue
        seen.add((found.st_dev, found.st_ino))
        with os.scandir(f"{root}/{folder}") as entries:
            for entry in entries:
                path = f"{folder}{entry.name}"
                if entry.name.startswith(hidden):
                    continue
                if entry.is_dir(follow_symlinks=False):
                    folders.append(f"{path}/")
                elif entry.is_symlink() and Path(entry.path).is_dir():
                    links.append(f"{path}/")
                elif entry.is_file(follow_symlinks=False):
                    yield path, True
                else:
                    target = Path(entry.path)
                    yield path, target.is_file() or not target.exists()
