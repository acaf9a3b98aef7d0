"""The output of `serving.ray_data --features`: its record and its parts, and whether they are by the bundle in use.

serving/ray_features.py has the other side of record and columns. Knows no index.
"""

import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from typing import Any

from engine.errors import OptionsError
from engine.search.photo import is_uri
from engine.search.store import BundleKey

try:
    import pyarrow as pa
    import pyarrow.parquet as pq
    from pyarrow.fs import FileSelector, FileSystem, FileType, LocalFileSystem
except ModuleNotFoundError as error:
    raise OptionsError(
        "reading Parquet needs the package pyarrow: run python -m pip install '.[ray]' in a checkout"
    ) from error

RECORD = "_captions.json"
TEXT, NUMBER = pa.string(), pa.int64()
FACTS = {"image": TEXT, "path": TEXT, "sha256": TEXT, "size": NUMBER, "modified": NUMBER, "error": TEXT}
SAID = ["alternatives", "features"]
KEYS = re.compile(r"(?<=://)[^/?#]*@|[?#].*", re.DOTALL)  # what may be a key in a URI


class BrokenPartError(Exception):
    """Why a part cannot be read. Internal: the import counts it as an error."""


class ParquetOutput:
    """A folder, or a URI, that holds the record of a run and a file for each finished part of it.

    place: for people. made_of: its INPUT. root: the folder that paths in it begin in.
    """

    def __init__(self, place: str, bundle: BundleKey) -> None:
        """Raises OptionsError for a folder that is no such output, and for one by another bundle."""
        self._bundle = bundle
        self.place = (KEYS.sub("", place) if is_uri(place) else place).rstrip("/")
        self._system, self._folder = self._located(place)
        self.made_of, self.root = self._record()

    def parts(self) -> list[str]:
        """Returns the names of the finished parts. Raises OptionsError."""
        try:
            names = [info.base_name for info in self._system.get_file_info(FileSelector(self._folder))]
        except (OSError, pa.ArrowException) as error:
            raise OptionsError(f"{self.place} cannot be read: {_one_line(error)}") from error
        return sorted(name for name in names if name.startswith("part-") and name.endswith(".parquet"))

    def count(self, part: str) -> int:
        """Returns the number of rows of a part. Raises BrokenPartError."""
        with self.opened(part) as table:
            return int(table.metadata.num_rows)

    @contextmanager
    def opened(self, part: str) -> Iterator[Any]:
        """Opens a part that is by the bundle. Raises BrokenPartError, also for what goes wrong while it is read."""
        try:
            with self._system.open_input_file(f"{self._folder}/{part}") as file:
                table = pq.ParquetFile(file)
                schema = table.schema_arrow
                about = {name.decode(): value.decode() for name, value in (schema.metadata or {}).items()}
                kinds = {field.name: field.type for field in schema}
                if not {*FACTS, *SAID} <= kinds.keys() or "manifest_sha256" not in about:
                    raise BrokenPartError("it has no features, so another run wrote it")
                self._require_ours(about.get("bundle", ""), about["manifest_sha256"], "it", BrokenPartError)
                expected = FACTS | {"features": pa.binary(2 * prod(self._bundle.feature_shape))}
                if wrong := [name for name, kind in expected.items() if kinds[name] != kind]:
                    raise BrokenPartError(f"its column {wrong[0]} is {kinds[wrong[0]]}, not {expected[wrong[0]]}")
                yield table
        except (OSError, pa.ArrowException, UnicodeError) as error:
            raise BrokenPartError(f"it cannot be read: {_one_line(error)}") from error

    def _record(self) -> tuple[str, str]:
        """Returns what the output was made of, and the folder of the images. Raises OptionsError."""
        path = f"{self._folder}/{RECORD}"
        try:
            there = self._system.get_file_info(path).type == FileType.File
            content = self._system.open_input_stream(path).read() if there else b""
        except (OSError, pa.ArrowException) as error:
            raise OptionsError(f"{self.place} cannot be read: {_one_line(error)}") from error
        if not there:
            raise OptionsError(f"{self.place} is no output of serving.ray_data: it has no {RECORD}")
        try:
            record = json.loads(content)
            made_of, by = str(record["input"]), record.get("features")
            if by is not None:
                name, digest, root = (str(by[key]) for key in ("bundle", "manifest sha256", "root"))
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise OptionsError(f"{self.place}/{RECORD} is broken: caption into another OUTPUT") from error
        if by is None:
            raise OptionsError(
                f"{self.place} has captions without features: run serving.ray_data with --features and another OUTPUT"
            )
        self._require_ours(name, digest, self.place, OptionsError)
        return made_of, root

    def _require_ours(self, name: str, digest: str, what: str, kind: type[Exception]) -> None:
        if digest != self._bundle.digest:
            raise kind(
                f"{what} is by the bundle {name} ({digest[:16]}), and this index is to be by {self._bundle.name} "
                f"({self._bundle.digest[:16]}): give that one as --bundle, or caption the photographs by this one"
            )

    def _located(self, place: str) -> tuple[Any, str]:
        """Returns the file system of a path or URI, and the path in it. Raises OptionsError."""
        if not is_uri(place):
            return LocalFileSystem(), os.path.abspath(place)  # noqa: PTH100 - without following links
        try:
            system, path = FileSystem.from_uri(place)
        except (OSError, ValueError, pa.ArrowException) as error:
            why = re.split("[:'\"]", _one_line(error))[0]  # the rest may quote the URI
            raise OptionsError(f"{self.place} cannot be reached: {why}") from error
        return system, path.rstrip("/")


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
