"""From the output of `serving.ray_data --features` to an index: rows of Parquet files become photographs and files.

Knows no database's tables, and runs no encoder.
"""

import os
import posixpath
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from math import nan
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from engine.errors import OptionsError
from engine.search.indexing import UNREAD, Added, Vectors, stamp
from engine.search.parquet_output import FACTS, SAID, BrokenPartError, ParquetOutput
from engine.search.photo import Described, File, Known, Sentence, as_stored, is_uri, shown
from engine.search.store import BundleKey, Store
from engine.search.table import as_direction

AT_ONCE = 512  # rows of one transaction
FOOTERS = 16  # files whose numbers of rows are read at the same time
DIGEST = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class _Row:
    """A row, without what the model said. digest: of the image's bytes; b"" if it could not be fetched."""

    place: bytes
    digest: bytes
    size: int
    modified: int
    error: str

    @property
    def file(self) -> File:
        """What is stored of its file."""
        return File(self.place, self.size, self.modified, self.digest, self.error)

    def is_here(self) -> bool:
        """Returns whether its file is as it was when it was captioned; nobody asks an object store."""
        if self.is_elsewhere:
            return True
        now = stamp(self.place)
        return now is not None and (self.size == UNREAD or now == (self.size, self.modified))

    @property
    def is_elsewhere(self) -> bool:
        """Whether it is no file of this machine's file system."""
        return is_uri(shown(self.place))

    def is_known(self, was: Known | None) -> bool:
        """Returns whether nothing new is to be written of its file."""
        if was is None or was.missing:
            return False
        failed_too = bool(was.error and self.error)
        if self.size == UNREAD or (was.size, was.modified) == (self.size, self.modified):
            return was.current or failed_too
        return self.is_elsewhere and was.modified > self.modified  # a later output has it


class ParquetImport:
    """One pass over an output. What is written stays when it is interrupted, and is not written again."""

    def __init__(
        self,
        store: Store,
        bundle: BundleKey,
        vectors: Vectors | None,
        output: ParquetOutput,
        *,
        root: str | None,
        report: Callable[[Added], None],
    ) -> None:
        """root: where the images are now; None: where the output's record says. report: called as rows end.

        vectors: as for Indexing. Raises OptionsError for a root that is not there.
        """
        self._store, self._vectors, self._report = store, vectors, report
        self._shape = bundle.feature_shape
        self._output = output
        self._table = posixpath.basename(output.made_of)
        self._root = _existing(output.root if root is None else root, output.place)
        self._added = Added()

    def run(self) -> Added:
        """Writes what the index does not have yet. A part that cannot be read is an error, and costs no other."""
        parts = self._output.parts()
        with ThreadPoolExecutor(FOOTERS) as pool:
            counts = list(pool.map(self._count, parts))
        self._added.files = sum(count if isinstance(count, int) else 1 for count in counts)
        self._report(self._added)
        for part, count in zip(parts, counts, strict=True):
            try:
                if isinstance(count, BrokenPartError):
                    raise count
                self._add(part)
            except BrokenPartError as error:
                self._added.errors[f"{self._output.place}/{part}"] = str(error)
            self._report(self._added)
        return self._added

    def _count(self, part: str) -> int | BrokenPartError:
        try:
            return self._output.count(part)
        except BrokenPartError as error:
            return error

    def _add(self, part: str) -> None:
        with self._output.opened(part) as table:
            rows = [self._row(each) for each in table.read([*FACTS]).to_pylist()]
            captioned = list({row.digest for row in rows if not row.error})
            new = set(captioned) - self._store.described(captioned)
            if not new:
                for start in range(0, len(rows), AT_ONCE):
                    self._write(rows[start : start + AT_ONCE], [])
                return
            start = 0
            for batch in table.iter_batches(AT_ONCE, columns=SAID):
                some = rows[start : start + len(batch)]
                self._write(some, self._described(batch, some, new))
                start += len(batch)

    def _row(self, values: Mapping[str, Any]) -> _Row:
        place = self._place(values["image"], values["path"])
        error, sha256 = values["error"] or "", values["sha256"] or ""
        digest = bytes.fromhex(sha256) if DIGEST.fullmatch(sha256) else b""
        if not (error or digest):
            raise BrokenPartError(f"the row of {values['image']} has neither a checksum nor an error")
        size = UNREAD if values["size"] is None else values["size"]
        return _Row(place, digest, size, values["modified"] or 0, error)

    def _place(self, image: str, path: str | None) -> bytes:
        """Returns what the index calls an image: its path on this machine, or a URI."""
        if path is None:  # it is in a table, which is no file of a photograph: a pass over folders must not miss it
            table, number, row = (self._table + image if image.startswith("#") else image).rpartition("#")
            root = self._root if is_uri(self._root) else Path(self._root).as_uri()
            return f"{root}/{table if root == self._root else quote(table)}{number}{row}".encode()
        if is_uri(path) or (is_uri(self._root) and not path.startswith("/")):
            return (path if is_uri(path) else f"{self._root}/{path}").encode()
        return as_stored(posixpath.join(self._root, path))

    def _described(self, batch: Any, rows: Sequence[_Row], new: set[bytes]) -> list[Described]:
        """Returns what is to be stored of the photographs of a batch that are new, and takes them out of `new`."""
        taken: list[int] = []
        for i, row in enumerate(rows):
            if row.digest in new and not row.error:
                new.discard(row.digest)
                taken.append(i)
        values = batch.take(taken).to_pylist() if taken else []
        if any(not each["features"] or not each["alternatives"] for each in values):
            raise BrokenPartError("it has rows with neither features nor an error")
        stored = np.frombuffer(b"".join(each["features"] for each in values), "<f2").astype(np.float16, copy=False)
        features = stored.reshape(len(values), *self._shape)
        vectors = as_direction(self._vectors(features)) if self._vectors and values else [None] * len(values)
        return [
            Described(
                rows[i].digest,
                _sentences(each["alternatives"]),
                row,
                vector,
            )
            for i, each, row, vector in zip(taken, values, features, vectors, strict=True)
        ]

    def _write(self, rows: Sequence[_Row], described: Sequence[Described]) -> None:
        """Writes photographs, and those of the rows' files that are as they were captioned and not known yet."""
        first = {each.digest for each in described}
        known = self._store.known([row.place for row in rows])
        files: list[File] = []
        added = self._added
        for row in rows:
            here, is_known = row.is_here(), row.is_known(known.get(row.place))
            if here and not is_known:
                files.append(row.file)
            if row.error:
                added.errors[shown(row.place)] = row.error
            elif not here:
                added.changed += 1
            elif row.digest in first:
                added.captioned += 1
                first.discard(row.digest)
            elif is_known:
                added.unchanged += 1
            else:
                added.copies += 1
        if described or files:
            self._store.write(described, files)
        self._report(added)


def _sentences(alternatives: Iterable[Mapping[str, Any]]) -> tuple[Sentence, ...]:
    """Returns the sentences of a row, each text once."""
    by_text: dict[str, Sentence] = {}
    for each in alternatives:
        numbers = [nan if each[name] is None else each[name] for name in ("log_prob", "confidence")]
        by_text.setdefault(each["caption"], Sentence(each["caption"], *numbers))
    return tuple(by_text.values())


def _existing(root: str, output: str) -> str:
    """Returns where images are, without a slash at the end. Raises OptionsError for a folder that is not there."""
    if is_uri(root):
        return root.rstrip("/")
    root = os.path.abspath(root)  # noqa: PTH100 - without following links
    if not os.path.isdir(root):  # noqa: PTH112 - Path raises on some names
        raise OptionsError(
            f"there is no folder {root} with the images of {output}: name the one that has them by --root"
        )
    return root
