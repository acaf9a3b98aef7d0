"""The input of a bulk run, cut into parts that are captioned whole or not at all. Knows no captions and no Ray.

A part's name follows from what is in it, so that any run over the same input makes the same parts.
"""

import hashlib
import re
from collections.abc import Collection, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow.fs import FileInfo, FileSelector, FileSystem, FileType, LocalFileSystem

from engine import OptionsError

SUFFIXES = re.compile(
    r"apng|avifs?|bmp|dib|gif|hei[cf]|j2k|jfif|jp2|jpe?g?|jp[fx]|mpo|p[bgnp]m|pcx|png|psd|qoi|tga|tiff?|webp",
    re.IGNORECASE,
)
KEYS = re.compile(r"(?<=://)(?:[^/?#]*|[^/?#:]*:(?!\d+/)[^?#]*)@|\?[^#]*|#.*", re.DOTALL)
"""Where a URI may hold a key, also one whose slashes should have been written as %2F."""
LEAST, MOST, PARTS = 32, 4096, 256
"""Images of a part where nobody said how many: enough for this many parts, within these bounds."""
FOOTERS = 16  # Parquet files that are looked into at once


@dataclass(frozen=True, slots=True)
class Part:
    """Images that share an output file, `name`: the files of a folder, or rows start to stop of a Parquet file."""

    name: str
    files: tuple[str, ...] = ()
    table: str = ""
    start: int = 0
    stop: int = 0

    def __len__(self) -> int:
        return len(self.files) or self.stop - self.start


def locate(place: str) -> tuple[FileSystem, str]:
    """Returns the file system of a URI or of a path, and the path in it. Raises OptionsError."""
    if "://" not in place:
        return LocalFileSystem(), str(Path(place).absolute())
    try:
        uri = urlsplit(place)
        system, root = _connected(uri._replace(path="/", fragment="").geturl())
    except (pa.ArrowException, OSError, ValueError) as error:
        why = one_line(error)
        if shown(place) != place:
            why = re.split("[:'\"]", why)[0]  # what follows quotes it
        raise OptionsError(f"{shown(place)} cannot be reached: {why}") from error
    return system, f"{root.rstrip('/')}{unquote(uri.path)}".rstrip("/")


@lru_cache(64)
def _connected(uri: str) -> tuple[FileSystem, str]:
    """Connects once to each bucket: a table may name millions of images in it."""
    system, path = FileSystem.from_uri(uri)
    return system, str(path)


def shown(place: str) -> str:
    """Returns a place as messages and records have it: a URI without user, password and query, which may be keys."""
    return KEYS.sub("", place) if "://" in place else place


def one_line(error: BaseException) -> str:
    """Returns what an error says, on one line."""
    return " ".join(str(error).split()) or type(error).__name__


@dataclass(frozen=True, slots=True)
class Folder:
    """Image files in a folder and its subfolders, by their paths in it; hidden ones are left out."""

    files: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.files)

    @classmethod
    def find(cls, place: str) -> "Folder":
        """Lists a folder. Raises OptionsError."""
        found = (path for path, _ in _listed(place) if SUFFIXES.fullmatch(path.rpartition(".")[2]))
        files = tuple(sorted(found))
        if not files:
            raise OptionsError(f"there is no image file in {shown(place)}; images in Parquet files need --column")
        return cls(files)

    def parts(self, size: int) -> list[Part]:
        """Returns parts of at most `size` images."""
        return _parts_of_files(self.files, size)

    def left(self, size: int, done: Collection[str], images_of: Any) -> list[Part]:
        """Returns the parts that are not done. images_of(names): the images in parts that are.

        Where files came or went since, parts were cut otherwise: what they hold is then left out image by image.
        """
        parts = self.parts(size)
        left = [part for part in parts if part.name not in done]
        if strange := sorted(set(done) - {part.name for part in parts}):
            known = images_of(strange)
            left = _parts_of_files([file for part in left for file in part.files if file not in known], size)
        return left


def _parts_of_files(files: Sequence[str], size: int) -> list[Part]:
    chunks = [tuple(files[i : i + size]) for i in range(0, len(files), size)]
    return [Part(f"part-{_hash(chr(10).join(chunk))}", files=chunk) for chunk in chunks]


@dataclass(frozen=True, slots=True)
class Tables:
    """Parquet files, by their paths in the folder (or the one file, as ""), and how many rows each has."""

    rows: tuple[tuple[str, int], ...]

    def __len__(self) -> int:
        return sum(count for _, count in self.rows)

    @classmethod
    def find(cls, place: str, columns: Sequence[str]) -> "Tables":
        """Lists Parquet files that have the columns, the first of bytes or of text. Raises OptionsError."""
        files = sorted(path for path, _ in _listed(place) if not path or path.lower().endswith((".parquet", ".pq")))
        if not files:
            raise OptionsError(f"there is no Parquet file (*.parquet) in {shown(place)}")
        system, root = locate(place)

        def count(file: str) -> int:
            path = f"{root}/{file}" if file else root
            try:
                with system.open_input_file(path) as stream:
                    table = pq.ParquetFile(stream)
                    _check_columns(table.schema_arrow, columns, file or shown(place))
                    return int(table.metadata.num_rows)
            except (pa.ArrowException, OSError) as error:
                raise OptionsError(f"{file or shown(place)} cannot be read as Parquet: {one_line(error)}") from error

        with ThreadPoolExecutor(FOOTERS) as pool:
            rows = tuple(zip(files, pool.map(count, files), strict=True))
        if not any(count for _, count in rows):
            raise OptionsError(f"the Parquet files in {shown(place)} have no rows")
        return cls(rows)

    def parts(self, size: int) -> list[Part]:
        """Returns parts of at most `size` rows, each of one file."""
        found = []
        for file, count in self.rows:
            bounds = [*range(0, count, size), count]
            found += [
                Part(f"part-{_hash(file)}-{start:010}-{stop:010}", table=file, start=start, stop=stop)
                for start, stop in pairwise(bounds)
            ]
        return found

    def left(self, size: int, done: Collection[str], images_of: Any) -> list[Part]:
        """Returns the parts that are not done. Raises OptionsError where a file has other rows than it had."""
        parts = self.parts(size)
        files = {_hash(file): file for file, _ in self.rows}
        for name in sorted(set(done) - {part.name for part in parts}):
            if (changed := files.get(name.split("-")[1])) is not None:
                raise OptionsError(f"{changed or 'INPUT'} has other rows than when OUTPUT was begun: take a new OUTPUT")
        return [part for part in parts if part.name not in done]


def usual_size(images: int) -> int:
    """Returns how many images a part has where nobody said."""
    return min(MOST, max(LEAST, -(-images // PARTS)))


def image_type(schema: pa.Schema, column: str) -> pa.DataType:
    """Returns the type of a column, "struct.field" for a field of one. Raises KeyError."""
    name, *fields = column.split(".")
    if schema.get_field_index(name) < 0:
        raise KeyError(name)
    kind = schema.field(name).type
    for field in fields:
        if not pa.types.is_struct(kind) or kind.get_field_index(field) < 0:
            raise KeyError(field)
        kind = kind.field(field).type
    return kind


def is_bytes(kind: pa.DataType) -> bool:
    """Says whether a column holds images themselves and not their paths."""
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind))


def _check_columns(schema: pa.Schema, columns: Sequence[str], file: str) -> None:
    there = ", ".join(schema.names)
    for column in columns:
        try:
            kind = image_type(schema, column)
        except KeyError:
            raise OptionsError(f"{file} has no column {column!r}: its columns are {there}") from None
        if column == columns[0] and not (
            is_bytes(kind)
            or pa.types.is_string(kind)
            or pa.types.is_large_string(kind)
            or pa.types.is_string_view(kind)
        ):
            hint = f"; try {column}.bytes" if pa.types.is_struct(kind) else ""
            raise OptionsError(f"column {column!r} of {file} is {kind}: images are bytes, or their paths as text{hint}")


def _listed(place: str) -> Iterable[tuple[str, FileInfo]]:
    """Returns the files in a folder, by their paths in it; one file has the path ""."""
    system, root = locate(place)
    try:
        there = system.get_file_info(root)
        if there.type == FileType.NotFound:
            raise OptionsError(f"there is no {shown(place)}")
        if there.type == FileType.File:
            return [("", there)]
        infos = system.get_file_info(FileSelector(root, recursive=True))
    except (pa.ArrowException, OSError, UnicodeError) as error:
        raise OptionsError(f"{shown(place)} cannot be listed: {one_line(error)}") from error
    inside = ((info.path[len(root) + 1 :], info) for info in infos if info.type == FileType.File)
    return [(path, info) for path, info in inside if not any(name[0] in "._" for name in path.split("/"))]


def _hash(text: str) -> str:
    return hashlib.blake2b(text.encode(errors="surrogateescape"), digest_size=10).hexdigest()
