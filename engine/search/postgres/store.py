"""An index on a PostgreSQL server. Owns what is asked of it; knows no model.

Words are found by an index over all photographs that have a word, vectors by pgvector's HNSW graph (Malkov and Yashunin
2018), so a search reads a small part of the library, and no process keeps it in memory.
"""

from collections.abc import Iterable, Sequence
from hashlib import sha256
from typing import Any

import numpy as np

from engine.errors import StoreError
from engine.search.photo import Counts, Described, File, Known, Photo
from engine.search.postgres import schema
from engine.search.postgres.server import Server, one
from engine.search.postgres.writing import LONGEST, Writing
from engine.search.store import BundleKey, Changes, Store
from engine.search.stored import features_of, photo_of
from engine.search.table import best, unit
from engine.search.words import VERSION as WORDS_VERSION

RANKED = 100_000  # photographs that have a word of the query and are ranked by it, at most
SPARE = 10  # neighbours more than are wanted: the graph compares halves, and the order may differ in the last places
# BM25 as SQLite's FTS5 computes it, so that both stores bring the same candidates; each word is there once
BM25 = "said * 2.2 / (1 + 1.2 * (0.25 + 0.75 * length(words) / %s::float8))"


class PostgresStore(Store):
    """See Store."""

    def __init__(self, place: str, bundle: BundleKey, *, create: bool) -> None:
        """Connects to the server; create: makes the index if there is none, and allows writing. Raises StoreError.

        place: an address postgresql://…, as libpq reads it.
        """
        self._server = Server(place, schema.NAME)
        self.place = self._server.place
        self._key = bundle
        self._writable = create
        self._number: int | None = None
        try:
            exists = schema.require_ours(self._server)
            if create:
                self._number = schema.prepare(self._server, bundle)
                self._fold_again()
            elif not exists:
                how = f"`python -m engine index PHOTOS --index {self.place}` makes one"
                raise StoreError(f"there is no index in {self.place}: {how}")
            else:
                schema.require_same_words(self._server)
        except BaseException:
            self._server.close()
            raise

    def known(self, paths: Sequence[bytes]) -> dict[bytes, Known]:
        """See Store."""
        rows = self._rows(
            "SELECT path, size, modified, error, coalesce(p.bundle = %s, false), missing FROM files "
            "LEFT JOIN photos p ON p.id = photo WHERE sha256(path) = ANY(%s)",
            *(self._bundle(), [sha256(path).digest() for path in paths]),
        )
        return {bytes(path): Known(*known) for path, *known in rows}

    def described(self, digests: Sequence[bytes]) -> set[bytes]:
        """See Store."""
        rows = self._rows(
            "SELECT digest FROM photos WHERE digest = ANY(%s) AND bundle = %s", list(digests), self._bundle()
        )
        return {bytes(digest) for (digest,) in rows}

    def write(self, described: Sequence[Described], files: Sequence[File]) -> None:
        """See Store."""
        bundle = self._bundle()
        self._require_writable()
        assert bundle is not None, "a store that may write knows the number of its bundle"
        with self._server.transaction() as connection:
            writing = Writing(connection)
            changed = writing.photographs(described, bundle) if described else set()
            writing.renew(changed | writing.files(files))

    def files_in(self, folder: bytes) -> list[bytes]:
        """See Store."""
        inside = folder.rstrip(b"/") + b"/"
        after = inside[:-1] + bytes([inside[-1] + 1])
        rows = self._rows(
            "SELECT path FROM files WHERE substr(path, 1, 2000) BETWEEN substr(%s::bytea, 1, 2000) "
            "AND substr(%s::bytea, 1, 2000) AND path >= %s AND path < %s AND NOT missing",
            *(inside, after, inside, after),
        )
        return [bytes(path) for (path,) in rows]

    def mark_missing(self, paths: Iterable[bytes]) -> None:
        """See Store."""
        self._require_writable()
        with self._server.transaction() as connection:
            writing = Writing(connection)
            writing.renew(writing.missing(paths))

    def candidates(self, words: Sequence[str], limit: int) -> list[int]:
        """See Store. Of a word that more than RANKED photographs have, only so many are ranked."""
        counts = {word: count for word, count in self.frequencies(_findable(words)).items() if count}
        if not counts:
            return []
        photos, length = self._rows(  # not 0 but where all was marked as gone a moment ago
            "SELECT greatest(sum(living), 1)::float8, greatest(value, 1)::float8 FROM bundles, facts "
            "WHERE facts.name = 'words' GROUP BY value"
        )[0]
        n = np.array(list(counts.values()))
        weights = np.log(np.maximum((photos - n + 0.5) / (n + 0.5), 1))
        rows = self._rows(
            "SELECT photo FROM (SELECT photo, words FROM words WHERE words @@ %s::tsquery LIMIT %s) AS found, "
            "LATERAL (SELECT sum(weight) AS said FROM unnest(%s::tsquery[], %s::float8[]) AS query (word, weight) "
            "WHERE words @@ word) AS score "
            f"ORDER BY {BM25} DESC, photo LIMIT %s",
            " | ".join(map(_quoted, counts)),
            RANKED,
            [_quoted(word) for word in counts],
            np.maximum(weights, 1e-6).tolist(),
            length / photos,
            limit,
        )
        return [id_ for (id_,) in rows]

    def frequencies(self, words: Sequence[str]) -> dict[str, int]:
        """See Store."""
        rows = self._rows("SELECT word, photos FROM frequencies WHERE word = ANY(%s)", _findable(words))
        return dict.fromkeys(words, 0) | dict(rows)

    def folded(self, ids: Sequence[int]) -> dict[int, str]:
        """See Store."""
        query = "SELECT photo, array_to_string(tsvector_to_array(words), ' ') FROM words WHERE photo = ANY(%s)"
        return dict(self._rows(query, list(ids)))

    def changes(self, since: int) -> Changes:
        """See Store."""
        bundle, size = self._bundle(), self._key.vector_size
        vectors = size and bundle is not None
        sent, joined = ("halfvec_send(vector)", "LEFT JOIN vectors v ON photo = p.id AND v.bundle = p.bundle")
        if not vectors:
            sent, joined = "NULL", ""
        rows = self._rows(
            f"SELECT value, p.id, p.living > 0 AND p.bundle = %s, CASE WHEN p.bundle = %s THEN {sent} END FROM facts "
            f"LEFT JOIN photos p ON p.revision > %s AND (%s OR p.bundle = %s) {joined} "
            "WHERE name = 'revision' ORDER BY p.id",
            *(bundle, bundle, since, since > 0, bundle),
        )
        revision, first = rows[0][:2]
        photos = rows if first is not None else []
        return Changes(
            revision,
            np.array([row[1] for row in photos], np.int64),
            np.array([bool(row[2]) for row in photos], bool),
            _directions([row[3] for row in photos], size),
        )

    def nearest(self, vector: np.ndarray, limit: int) -> dict[int, float]:
        """See Store."""
        bundle, size = self._bundle(), self._key.vector_size
        if not size or bundle is None:
            return {}
        rows = self._rows(  # as the index was made for this bundle
            f"SELECT photo, halfvec_send(vector) FROM vectors WHERE bundle = {bundle} AND living "
            f"ORDER BY (vector::halfvec({size})) <=> %s::halfvec({size}) LIMIT %s",
            *(str(vector.tolist()), limit + SPARE),
        )
        ids = np.array([row[0] for row in rows], np.int64)
        cosines = unit(_directions([row[1] for row in rows], size)) @ vector
        order = np.argsort(ids)  # of equal ones the lower id first
        first = order[best(cosines[order], limit)]
        return dict(zip(ids[first].tolist(), cosines[first].tolist(), strict=True))

    def cosines(self, vector: np.ndarray, ids: Sequence[int]) -> dict[int, float]:
        """See Store."""
        if not self._key.vector_size:
            query = "SELECT id FROM photos WHERE id = ANY(%s) AND bundle = %s AND living > 0"
            return {id_: 0.0 for (id_,) in self._rows(query, list(ids), self._bundle())}
        rows = self._vectors(ids)
        cosines = unit(_directions([row[1] for row in rows], self._key.vector_size)) @ vector
        return dict(zip([row[0] for row in rows], cosines.tolist(), strict=True))

    def vector(self, id_: int) -> np.ndarray | None:
        """See Store."""
        rows = self._vectors([id_])
        return unit(_directions([rows[0][1]], self._key.vector_size))[0] if rows else None

    def features(self, ids: Sequence[int]) -> np.ndarray:
        """See Store."""
        query = (
            "SELECT photo, features FROM features JOIN photos p ON p.id = photo WHERE photo = ANY(%s) AND bundle = %s"
        )
        return features_of(ids, dict(self._rows(query, list(ids), self._bundle())), self._key.feature_shape)

    def photos(self, ids: Sequence[int]) -> list[Photo]:
        """See Store."""
        rows = self._rows(
            "SELECT p.id, digest, sentences, path, size, modified FROM photos p "
            "LEFT JOIN files ON photo = p.id AND NOT missing WHERE p.id = ANY(%s) AND bundle = %s",
            *(list(ids), self._bundle()),
        )
        files: dict[int, list[tuple[Any, ...]]] = {}
        for id_, _, _, path, *rest in rows:
            files.setdefault(id_, []).extend([(bytes(path), *rest)] if path is not None else [])
        found = {row[0]: photo_of(row[:3], files[row[0]]) for row in rows}
        return [found[id_] for id_ in ids if id_ in found]

    def id_of(self, path: bytes) -> int | None:
        """See Store."""
        rows = self._rows("SELECT photo FROM files WHERE sha256(path) = %s AND NOT missing", sha256(path).digest())
        return rows[0][0] if rows else None

    def counts(self) -> Counts:
        """See Store."""
        photos, ours, facts = self._rows(
            "SELECT coalesce(sum(living), 0)::bigint, coalesce(sum(living) FILTER (WHERE id = %s), 0)::bigint, "
            "(SELECT array_agg(value ORDER BY name) FROM facts WHERE name IN ('errors', 'files', 'missing')) "
            "FROM bundles",
            self._bundle(),
        )[0]
        errors, files, missing = facts
        return Counts(photos, files, errors, missing, photos - ours)

    def close(self) -> None:
        """See Store."""
        self._server.close()

    def _rows(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        return self._server.rows(statement, *values)

    def _vectors(self, ids: Sequence[int]) -> list[tuple[Any, ...]]:
        """Returns ids and vectors, as they are stored, of the photographs of this bundle that have a file."""
        bundle = self._bundle()
        if not self._key.vector_size or bundle is None:
            return []
        query = "SELECT photo, halfvec_send(vector) FROM vectors WHERE photo = ANY(%s) AND bundle = %s AND living"
        return self._rows(query, list(ids), bundle)

    def _bundle(self) -> int | None:
        """Returns the number of the bundle in this index; None as long as nobody has written for it."""
        if self._number is None:
            self._number = schema.bundle_id(self._server, self._key)
        return self._number

    def _fold_again(self) -> None:
        """Folds words again that were folded by other rules."""
        if one(self._rows("SELECT value FROM facts WHERE name = 'folding'")) != WORDS_VERSION:
            with self._server.transaction() as connection:
                Writing(connection).fold_again()

    def _require_writable(self) -> None:
        if not self._writable:
            raise StoreError(f"{self.place} was opened to be searched only")


def _findable(words: Sequence[str]) -> list[str]:
    """Returns the words that the index may have."""
    return [word for word in words if word and len(word.encode()) <= LONGEST]


def _quoted(word: str) -> str:
    """Returns a word as a tsquery."""
    return "'" + word.replace("\\", "\\\\").replace("'", "''") + "'"


def _directions(sent: Sequence[bytes | None], size: int) -> np.ndarray:
    """Returns vectors that pgvector sent, two numbers of 16 bits and halves, as they came: int8 (photos, size)."""
    none = bytes(2 * size)
    halves = b"".join(none if each is None else bytes(each)[4:] for each in sent)
    directions: np.ndarray = np.frombuffer(halves, ">f2").reshape(len(sent), size).astype(np.int8)
    return directions
