"""The input of a bulk run, cut into parts, each of which is captioned completely or not at all. Knows no Ray.

A part's name is computed from its content, so every run over the same input makes the same parts.
"""

import hashlib
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from posixpath import splitext
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from engine import OptionsError, image_suffixes
from serving.ray_places import files_in, locate, one_line, shown

LEAST, MOST, PARTS = 32, 4096, 256
"""The default size of a part: so that there are PARTS of them, but at least LEAST and at most MOST images."""
FOOTERS = 16  # Parquet files whose metadata are read at the same time


@dataclass(frozen=True, slots=True)
class Part:
    """The images of one output file, `name`: files of a folder, or the rows from start to stop of a Parquet file."""

    name: str
    files: tuple[str, ...] = ()
    table: str = ""
    start: int = 0
    stop: int = 0

    def __len__(self) -> int:
        return len(self.files) or self.stop - self.start


@dataclass(frozen=True, slots=True)
class Folder:
    """Image files in a folder and its subfolders, by their paths in it.

    others: files not named like an image. irregular: pipes, devices and sockets, whatever their names.
    """

    files: tuple[str, ...]
    others: tuple[str, ...] = ()
    irregular: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.files)

    @classmethod
    def find(cls, place: str, besides: str = "", formats: tuple[str, ...] = ()) -> "Folder":
        """Lists a folder, without hidden files and its subfolder `besides`. Raises OptionsError.

        formats: formats besides the usual ones whose files count as images.
        """
        suffixes = image_suffixes(formats)
        files: list[str] = []
        others: list[str] = []
        irregular: list[str] = []
        for path in files_in(place, ".", irregular):
            if not (besides and path.startswith(f"{besides}/")):
                suffix = splitext(path)[1].lower()
                (files if suffix in suffixes else others).append(path)
        if not files:
            raise OptionsError(f"there is no image file in {shown(place)}; for images in Parquet files give --column")
        return cls(tuple(sorted(files)), tuple(sorted(others)), tuple(sorted(irregular)))

    def parts(self, size: int) -> list[Part]:
        """Returns parts of at most `size` images."""
        return _parts_of_files(self.files, size)

    def left(self, size: int, done: Collection[str], images_of: Any) -> list[Part]:
        """Returns the parts that are not done. images_of(names): returns the images in finished parts.

        If files were added or removed since, parts were cut differently; then finished images are left out one by one.
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
    """Parquet files, by their paths in the folder ("" for a single file), and how many rows each has."""

    rows: tuple[tuple[str, int], ...]

    def __len__(self) -> int:
        return sum(count for _, count in self.rows)

    @classmethod
    def find(cls, place: str, columns: Sequence[str]) -> "Tables":
        """Lists Parquet files. Each must have the columns, the first with bytes or text. Raises OptionsError."""
        paths = files_in(place, hidden="._")  # readers of Parquet skip both
        files = sorted(path for path in paths if not path or path.lower().endswith((".parquet", ".pq")))
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
        """Returns the parts that are not done. Raises OptionsError if the number of rows of a file has changed."""
        parts = self.parts(size)
        files = {_hash(file): file for file, _ in self.rows}
        for name in sorted(set(done) - {part.name for part in parts}):
            if (changed := files.get(name.split("-")[1])) is not None:
                raise OptionsError(f"{changed or 'INPUT'} has changed since OUTPUT was begun: use a new OUTPUT")
        return [part for part in parts if part.name not in done]


def usual_size(images: int) -> int:
    """Returns the default number of images in a part."""
    return min(MOST, max(LEAST, -(-images // PARTS)))


def steps(schema: pa.Schema, column: str) -> list[str]:
    """Returns the names that lead to a column: its own, or if there is none of that name, those of "struct.field"."""
    return [column] if schema.get_field_index(column) >= 0 else column.split(".")


def image_type(schema: pa.Schema, column: str) -> pa.DataType:
    """Returns the type of a column, or of the field "struct.field". Raises KeyError."""
    name, *fields = steps(schema, column)
    if schema.get_field_index(name) < 0:
        raise KeyError(name)
    kind = schema.field(name).type
    for field in fields:
        if not pa.types.is_struct(kind) or kind.get_field_index(field) < 0:
            raise KeyError(field)
        kind = kind.field(field).type
    return kind


def is_bytes(kind: pa.DataType) -> bool:
    """Returns whether a column has the images themselves and not their paths."""
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind))


def _check_columns(schema: pa.Schema, columns: Sequence[str], file: str) -> None:
    there = ", ".join(schema.names)
    image, *kept = columns
    for column in kept:
        if schema.get_field_index(column) < 0:  # a field of a struct is not a column
            raise OptionsError(f"{file} has no column {column!r}: its columns are {there}")
    try:
        kind = image_type(schema, image)
    except KeyError:
        raise OptionsError(f"{file} has no column {image!r}: its columns are {there}") from None
    texts = pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view
    if not is_bytes(kind) and not any(is_text(kind) for is_text in texts):
        hint = f"; try {image}.bytes" if pa.types.is_struct(kind) else ""
        raise OptionsError(f"column {image!r} of {file} is {kind}: it must have images as bytes or paths as text{hint}")


def _hash(text: str) -> str:
    return hashlib.blake2b(text.encode(errors="surrogateescape"), digest_size=10).hexdigest()
