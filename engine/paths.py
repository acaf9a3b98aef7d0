"""Arguments of a command line -> image paths. Owns folders, globs and lists; opens no image."""

import glob
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

SUFFIXES = re.compile(
    r"apng|avifs?|bmp|dds|dib|gif|hei[cf]|ico|j2k|jfif|jp2|jpe|jpe?g|jp[fx]|mpo|p[bgnp]m|pcx|png|psd|qoi|sgi|tga|tiff?|webp",
    re.IGNORECASE,
)  # HEIC too: a folder's unreadable photographs are reported, not passed over


def expand(argument: str, listed: Iterable[bytes]) -> Iterator[str]:
    """Yields the paths that an argument names, in order.

    A folder gives its image files, subfolders included, sorted, without hidden ones. A glob gives what the shell
    would make of it. "-" gives the paths in `listed`, one a line. Anything else is the path of one file, there or
    not: whoever opens it will tell.
    """
    if argument == "-":
        for line in listed:
            if path := os.fsdecode(line.rstrip(b"\r\n")):
                yield from _expand_name(path)
    else:
        yield from _expand_name(argument)


def _expand_name(name: str) -> Iterator[str]:
    if any(sign in name for sign in "*?[") and not os.path.lexists(name):
        matches = sorted(glob.glob(name, recursive=True), key=_by_part)  # noqa: PTH207 - keeps names as they were given
        found = (path for match in matches for path in _expand_folder(match))
        yield from dict.fromkeys(found) or [name]  # "**" matches a folder and what is in it
    else:
        yield from _expand_folder(name)


def _expand_folder(name: str) -> list[str]:
    if not os.path.isdir(name):  # noqa: PTH112 - Path.is_dir raises on names that no file can have
        return [name]
    unreadable: list[OSError] = []
    found = []
    for folder, subfolders, files in os.walk(name, onerror=unreadable.append):
        subfolders[:] = [subfolder for subfolder in subfolders if not subfolder.startswith(".")]
        found += [os.path.join(folder, file) for file in files if _is_image_name(file)]  # noqa: PTH118
    found += [os.fsdecode(error.filename) for error in unreadable]  # opening it will say why
    return sorted(found, key=_by_part)


def _is_image_name(file: str) -> bool:
    return not file.startswith(".") and SUFFIXES.fullmatch(Path(file).suffix[1:]) is not None


def _by_part(path: str) -> tuple[str, ...]:
    return Path(path).parts
