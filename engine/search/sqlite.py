"""An index in one SQLite file. Owns its tables; knows no model and no search.

Tables have what a search reads together side by side: the vectors of all photographs are read at once, features a few
at a time. Pages of 32 kB waste little beside rows of 2.5 kB. The file is in write-ahead mode: readers and a writer do
not wait for each other, and a process that is killed leaves its last transaction out.
"""

import json
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from engine.errors import StoreError
from engine.search import words
from engine.search.photo import Counts, Described, File, Known, Photo
from engine.search.sqlite_file import connect, identity, reason, write_ahead
from engine.search.store import BundleKey, Changes
from engine.search.stored import as_json, as_sentences, as_text, features_of, photo_of
from engine.search.table import TableStore

APPLICATION = 0x43415054  # "CAPT"
VERSION = 1
SCHEMA = """
CREATE TABLE facts (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE bundles (
    id INTEGER PRIMARY KEY, name TEXT NOT NULL, digest TEXT NOT NULL UNIQUE, shape TEXT NOT NULL, vector_size INTEGER);
CREATE TABLE photos (
    id INTEGER PRIMARY KEY, digest BLOB NOT NULL UNIQUE, bundle INTEGER NOT NULL, sentences TEXT NOT NULL,
    living INTEGER NOT NULL, revision INTEGER NOT NULL);
CREATE INDEX photos_by_revision ON photos (revision);
CREATE TABLE features (photo INTEGER PRIMARY KEY, features BLOB NOT NULL);
CREATE TABLE vectors (photo INTEGER PRIMARY KEY, vector BLOB NOT NULL);
CREATE TABLE files (
    path BLOB PRIMARY KEY, size INTEGER NOT NULL, modified INTEGER NOT NULL, photo INTEGER, error TEXT NOT NULL,
    missing INTEGER NOT NULL) WITHOUT ROWID;
CREATE INDEX files_by_photo ON files (photo);
CREATE VIRTUAL TABLE words USING fts5 (folded, tokenize = "unicode61 remove_diacritics 0 tokenchars '_'");
CREATE VIRTUAL TABLE frequencies USING fts5vocab (words, row);
"""


class SQLiteStore(TableStore):
    """See Store."""

    def __init__(self, path: Path, bundle: BundleKey, *, create: bool) -> None:
        """Opens the file; create: makes it if there is none, and it has to be writable. Raises StoreError."""
        super().__init__(bundle)
        self.place = str(path)
        self._lock = threading.RLock()
        self._counted: tuple[int, Counts] | None = None  # at which revision
        self._writable = create
        with self._explained():
            self._connection = connect(path, create=create)
            try:
                self._identity = identity(path)
                self._require_ours()
                if create:
                    self._prepare()
                elif self._fact("words") != words.VERSION:
                    raise StoreError(
                        f"{self.place} has words of another version of this engine: run `python -m engine index` once"
                    )
            except BaseException:
                self._connection.close()
                raise

    def known(self, paths: Sequence[bytes]) -> dict[bytes, Known]:
        """See Store."""
        query = (
            "SELECT size, modified, error, missing, ifnull(b.digest = ?, 0) FROM files "
            "LEFT JOIN photos p ON p.id = photo LEFT JOIN bundles b ON b.id = p.bundle WHERE path = ?"
        )
        found = {}
        with self._explained():
            for path in paths:
                for size, modified, error, missing, current in self._all(query, self._bundle.digest, path):
                    found[path] = Known(size, modified, error, bool(current), bool(missing))
        return found

    def described(self, digests: Sequence[bytes]) -> set[bytes]:
        """See Store."""
        query = "SELECT 1 FROM photos JOIN bundles b ON b.id = bundle WHERE photos.digest = ? AND b.digest = ?"
        with self._explained():
            return {digest for digest in digests if self._all(query, digest, self._bundle.digest)}

    def write(self, described: Sequence[Described], files: Sequence[File]) -> None:
        """See Store."""
        with self._explained(), self._transaction() as revision:
            bundle = self._bundle_id()
            changed = {self._write_photo(each, bundle, revision) for each in described}
            for file in files:
                changed |= self._write_file(file)
            self._renew(changed, revision)

    def files_in(self, folder: bytes) -> list[bytes]:
        """See Store."""
        inside = folder.rstrip(b"/") + b"/"
        after = inside[:-1] + bytes([inside[-1] + 1])
        with self._explained():
            rows = self._all("SELECT path FROM files WHERE path >= ? AND path < ? AND NOT missing", inside, after)
        return [path for (path,) in rows]

    def mark_missing(self, paths: Iterable[bytes]) -> None:
        """See Store."""
        with self._explained(), self._transaction() as revision:
            changed = set()
            for path in paths:
                changed |= {photo for (photo,) in self._all("SELECT photo FROM files WHERE path = ?", path)}
                self._all("UPDATE files SET missing = 1 WHERE path = ?", path)
            self._renew(changed - {None}, revision)

    def candidates(self, words: Sequence[str], limit: int) -> list[int]:
        """See Store."""
        if not words:
            return []
        said = " OR ".join(f'"{word}"' for word in words)  # only letters, digits and underscores
        query = "SELECT rowid FROM words WHERE words MATCH ? ORDER BY rank LIMIT ?"
        with self._explained():
            return [id_ for (id_,) in self._all(query, said, limit)]

    def frequencies(self, words: Sequence[str]) -> dict[str, int]:
        """See Store."""
        with self._explained():
            rows = self._all(
                "SELECT term, doc FROM frequencies WHERE term IN (SELECT value FROM json_each(?))", json.dumps(words)
            )
        return dict.fromkeys(words, 0) | dict(rows)

    def folded(self, ids: Sequence[int]) -> dict[int, str]:
        """See Store."""
        with self._explained():
            return dict(self._of_photos("SELECT rowid, folded FROM words WHERE rowid", ids))

    def changes(self, since: int) -> Changes:
        """See Store."""
        query = (
            "SELECT p.id, living, vector, b.digest = ?1 FROM photos p JOIN bundles b ON b.id = bundle "
            "LEFT JOIN vectors ON photo = p.id WHERE revision > ?2 AND (?2 > 0 OR b.digest = ?1) ORDER BY p.id"
        )
        with self._explained(), self._snapshot():
            revision = self._fact("revision")
            rows = self._all(query, self._bundle.digest, since) if revision > since else []
        none = bytes(size := self._bundle.vector_size)
        vectors = np.frombuffer(b"".join((row[2] if row[3] else none) or none for row in rows), np.int8)
        return Changes(
            revision,
            np.array([row[0] for row in rows], np.int64),
            np.array([row[1] > 0 and bool(row[3]) for row in rows], bool),
            vectors.reshape(len(rows), size),
        )

    def features(self, ids: Sequence[int]) -> np.ndarray:
        """See Store."""
        query = (
            "SELECT photo, features FROM features JOIN photos p ON p.id = photo JOIN bundles b ON b.id = bundle "
            "WHERE b.digest = ? AND photo"
        )
        with self._explained():
            found = dict(self._of_photos(query, ids, self._bundle.digest))
        return features_of(ids, found, self._bundle.feature_shape)

    def photos(self, ids: Sequence[int]) -> list[Photo]:
        """See Store."""
        of_files = "SELECT photo, path, size, modified FROM files WHERE NOT missing AND photo"
        with self._explained(), self._snapshot():
            photos = self._of_photos("SELECT id, digest, sentences, bundle FROM photos WHERE id", ids)
            bundles = self._all("SELECT id FROM bundles WHERE digest = ?", self._bundle.digest)
            files: dict[int, list[tuple[Any, ...]]] = {}
            for photo, *file in self._of_photos(of_files, ids):
                files.setdefault(photo, []).append(tuple(file))
        rows = {row[0]: row for *row, bundle in photos if (bundle,) in bundles}
        return [photo_of(rows[id_], files.get(id_, [])) for id_ in ids if id_ in rows]

    def id_of(self, path: bytes) -> int | None:
        """See Store."""
        with self._explained():
            rows = self._all("SELECT photo FROM files WHERE path = ? AND NOT missing", path)
        return rows[0][0] if rows else None

    def counts(self) -> Counts:
        """See Store."""
        with self._explained(), self._snapshot():
            revision = self._fact("revision")
            if self._counted is None or self._counted[0] != revision:  # counting 100,000 takes longer than a search
                self._counted = revision, self._count()
            return self._counted[1]

    def was_replaced(self) -> bool:
        """See Store."""
        now = identity(Path(self.place))
        return now is not None and now != self._identity

    def close(self) -> None:
        """See Store."""
        with self._lock:
            self._connection.close()

    def _count(self) -> Counts:
        ((photos, others),) = self._all(
            "SELECT count(*), total(ifnull(b.digest, '') != ?) FROM photos LEFT JOIN bundles b ON b.id = bundle "
            "WHERE living > 0",
            self._bundle.digest,
        )
        ((files, errors, missing),) = self._all(
            "SELECT total(NOT missing), total(NOT missing AND error != ''), total(missing) FROM files"
        )
        return Counts(photos, int(files), int(errors), int(missing), int(others))

    def _write_photo(self, each: Described, bundle: int, revision: int) -> int:
        """Writes a photograph in place of what its bytes had before; returns its id."""
        ((photo,),) = self._all(
            "INSERT INTO photos (digest, bundle, sentences, living, revision) VALUES (?1, ?2, ?3, 0, ?4) ON CONFLICT "
            "(digest) DO UPDATE SET bundle = ?2, sentences = ?3, revision = ?4 RETURNING id",
            *(each.digest, bundle, as_json(each.sentences), revision),
        )
        self._all("INSERT OR REPLACE INTO features VALUES (?, ?)", photo, each.features.tobytes())
        self._all("DELETE FROM vectors WHERE photo = ?", photo)  # another bundle may have had one
        if each.vector is not None:
            self._all("INSERT INTO vectors VALUES (?, ?)", photo, each.vector.tobytes())
        return int(photo)

    def _write_file(self, file: File) -> set[int]:
        """Writes a file; returns the photographs whose files changed."""
        before = self._all("SELECT photo FROM files WHERE path = ?", file.path)
        photo = None
        if not file.error:
            ((photo,),) = self._all("SELECT id FROM photos WHERE digest = ?", file.digest)
        values = file.path, file.size, file.modified, photo, as_text(file.error)
        self._all("INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?, 0)", *values)
        return {each for (each,) in [*before, (photo,)] if each is not None}

    def _renew(self, photos: Iterable[int], revision: int) -> None:
        """Counts the files of photographs again; words are searched of those only that have one."""
        count = "UPDATE photos SET revision = ?, living = (SELECT count(*) FROM files WHERE photo = ?2 AND NOT missing)"
        for photo in photos:
            ((living, stored),) = self._all(f"{count} WHERE id = ?2 RETURNING living, sentences", revision, photo)
            self._all("DELETE FROM words WHERE rowid = ?", photo)
            if living:
                said = words.folded(each.text for each in as_sentences(stored))
                self._all("INSERT INTO words (rowid, folded) VALUES (?, ?)", photo, said)

    def _bundle_id(self) -> int:
        key = self._bundle
        self._all(
            "INSERT OR IGNORE INTO bundles (name, digest, shape, vector_size) VALUES (?, ?, ?, ?)",
            *(key.name, key.digest, json.dumps(key.feature_shape), key.vector_size),
        )
        ((id_,),) = self._all("SELECT id FROM bundles WHERE digest = ?", key.digest)
        return int(id_)

    def _require_ours(self) -> None:
        """Raises StoreError for a file of another program or version."""
        ((tables,),) = self._all("SELECT count(*) FROM sqlite_master")
        ((application,),) = self._all("PRAGMA application_id")
        ((version,),) = self._all("PRAGMA user_version")
        if not tables and self._writable:
            return
        if not tables:
            fills = f"`python -m engine index PHOTOS --index {self.place}` fills it"
            raise StoreError(f"{self.place} has nothing in it yet: {fills}")
        if application != APPLICATION:
            raise StoreError(f"{self.place} is no index of photographs: name another file")
        if version != VERSION:
            raise StoreError(
                f"{self.place} is an index of version {version}, and this engine reads version {VERSION}: delete it and"
                " index the photographs again, or use the engine that made it"
            )

    def _prepare(self) -> None:
        """Makes the tables where there are none, and folds words again that were folded by other rules."""
        self._connection.execute("PRAGMA page_size = 32768")
        write_ahead(self._connection)
        self._connection.execute("PRAGMA synchronous = NORMAL")
        with self._connection:
            self._connection.execute("BEGIN IMMEDIATE")
            if not self._all("SELECT 1 FROM sqlite_master"):
                for statement in SCHEMA.split(";\n"):
                    self._connection.execute(statement)
                self._all("INSERT INTO facts VALUES ('revision', 0), ('words', ?)", words.VERSION)
                self._connection.execute(f"PRAGMA application_id = {APPLICATION}")
                self._connection.execute(f"PRAGMA user_version = {VERSION}")
            elif self._fact("words") != words.VERSION:
                photos = [photo for (photo,) in self._all("SELECT id FROM photos")]
                self._renew(photos, self._fact("revision"))
                self._all("UPDATE facts SET value = ? WHERE name = 'words'", words.VERSION)

    def _fact(self, name: str) -> int:
        return int(self._all("SELECT value FROM facts WHERE name = ?", name)[0][0])

    def _all(self, statement: str, *values: object) -> list[Any]:
        return self._connection.execute(statement, values).fetchall()

    def _of_photos(self, statement: str, ids: Sequence[int], *values: object) -> list[Any]:
        """Returns rows of a statement that ends in a column, for these values of it."""
        listed = json.dumps([int(id_) for id_ in ids])
        return self._all(f"{statement} IN (SELECT value FROM json_each(?))", *values, listed)

    @contextmanager
    def _transaction(self) -> Iterator[int]:
        """Writes all or nothing. Yields the number of a new revision."""
        if not self._writable:
            raise StoreError(f"{self.place} was opened to be searched only")
        with self._connection:
            self._connection.execute("BEGIN IMMEDIATE")
            self._all("UPDATE facts SET value = value + 1 WHERE name = 'revision'")
            yield self._fact("revision")

    @contextmanager
    def _snapshot(self) -> Iterator[None]:
        """Lets several statements read the same state."""
        with self._connection:
            self._connection.execute("BEGIN")
            yield

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Gives one thread the connection. Raises what SQLite says as StoreError."""
        with self._lock:
            try:
                yield
            except sqlite3.Error as error:
                raise StoreError(f"{self.place}: {reason(error)}") from error
            except OSError as error:  # of the folder that it is in
                raise StoreError(f"{self.place}: it cannot be opened: {error.strerror or error}") from error
