"""What is written to an index on a PostgreSQL server in one transaction, and the counts that follow from it."""

from collections import Counter
from collections.abc import Iterable, Sequence
from hashlib import sha256
from typing import Any

import numpy as np

from engine.search import words
from engine.search.photo import Described, File
from engine.search.postgres.server import Connection, one
from engine.search.stored import as_json, as_sentences, as_text

LONGEST = 500  # bytes of a word: longer ones are searched by nobody, and a key of an index has a limit
NO_ROWS: list[tuple[Any, ...]] = []


class Writing:
    """One transaction. Nobody else writes from its beginning to its end."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._new_vectors: dict[int, np.ndarray | None] = {}
        # locks the fact: others wait here until this transaction has ended
        revision = "UPDATE facts SET value = value + 1 WHERE name = 'revision' RETURNING value"
        self._revision = int(one(self._rows(revision)))

    def photographs(self, described: Sequence[Described], bundle: int) -> set[int]:
        """Writes photographs in place of what their bytes had before; returns their ids, which then need `renew`."""
        last = {each.digest: each for each in described}  # as if they came one after the other
        photos = self._rows(
            "INSERT INTO photos (digest, bundle, sentences, living, revision) "
            "SELECT digest, %s, sentences, 0, %s FROM unnest(%s::bytea[], %s::text[]) AS new (digest, sentences) "
            "ON CONFLICT (digest) DO UPDATE "
            "SET bundle = excluded.bundle, sentences = excluded.sentences, revision = excluded.revision "
            "RETURNING id, digest",
            *(bundle, self._revision, list(last), [as_json(each.sentences) for each in last.values()]),
        )
        ids = [id_ for id_, _ in photos]
        written = [last[bytes(digest)] for _, digest in photos]
        self._rows(
            "INSERT INTO features SELECT * FROM unnest(%s::bigint[], %s::bytea[]) "
            "ON CONFLICT (photo) DO UPDATE SET features = excluded.features",
            *(ids, [each.features.tobytes() for each in written]),
        )
        self._new_vectors |= zip(ids, (each.vector for each in written), strict=True)
        return set(ids)

    def files(self, files: Sequence[File]) -> set[int]:
        """Writes files in place of what was known of them; returns the photographs whose files changed."""
        last = {file.path: file for file in files}
        keys = [sha256(path).digest() for path in last]
        before = self._rows("SELECT photo, error, missing FROM files WHERE sha256(path) = ANY(%s)", keys)
        after = self._rows(
            "INSERT INTO files SELECT path, size, modified, p.id, error, false "
            "FROM unnest(%s::bytea[], %s::bigint[], %s::bigint[], %s::bytea[], %s::text[]) "
            "AS new (path, size, modified, digest, error) LEFT JOIN photos p ON error = '' AND p.digest = new.digest "
            "ON CONFLICT (sha256(path)) DO UPDATE SET size = excluded.size, modified = excluded.modified, "
            "photo = excluded.photo, error = excluded.error, missing = false RETURNING photo, error, missing",
            list(last),
            [file.size for file in last.values()],
            [file.modified for file in last.values()],
            [file.digest for file in last.values()],
            [as_text(file.error) for file in last.values()],
        )
        self._count(before, after)
        return {photo for photo, *_ in before + after if photo is not None}

    def missing(self, paths: Iterable[bytes]) -> set[int]:
        """Marks files as gone; returns the photographs whose files changed."""
        keys = [sha256(path).digest() for path in set(paths)]
        after = self._rows(
            "UPDATE files SET missing = true WHERE sha256(path) = ANY(%s) AND NOT missing RETURNING photo, error, true",
            keys,
        )
        self._count([(photo, error, False) for photo, error, _ in after], after)
        return {photo for photo, *_ in after if photo is not None}

    def renew(self, photos: Iterable[int]) -> None:
        """Counts the files of photographs again; words and vectors are searched of those only that have one."""
        ids = sorted(photos)
        rows = self._rows(
            "UPDATE photos SET revision = %s, living = "
            "(SELECT count(*) FROM files WHERE photo = photos.id AND NOT missing) WHERE id = ANY(%s) "
            "RETURNING id, bundle, living, sentences",
            *(self._revision, ids),
        )
        self._renew_vectors({id_: (bundle, living > 0) for id_, bundle, living, _ in rows})
        self._renew_words({id_: (bundle, _words(sentences)) for id_, bundle, living, sentences in rows if living}, ids)

    def fold_again(self) -> None:
        """Folds the words of all captions by the rules of this version."""
        self.renew([id_ for (id_,) in self._rows("SELECT id FROM photos")])
        self._rows("UPDATE facts SET value = %s WHERE name = 'folding'", words.VERSION)

    def _renew_vectors(self, photos: dict[int, tuple[int, bool]]) -> None:
        """Writes vectors where this transaction has new ones, and which photographs, by id, have a file."""
        if not one(self._rows("SELECT to_regclass('vectors') IS NOT NULL")):
            return
        self._rows("DELETE FROM vectors WHERE photo = ANY(%s)", list(self._new_vectors))  # another bundle's, too
        given = {photo: vector for photo, vector in self._new_vectors.items() if vector is not None}
        self._rows(
            "INSERT INTO vectors SELECT photo, bundle, living, vector::halfvec "
            "FROM unnest(%s::bigint[], %s::integer[], %s::boolean[], %s::text[]) "
            "AS new (photo, bundle, living, vector)",
            list(given),
            *([photos[photo][column] for photo in given] for column in (0, 1)),
            [_numbers(vector) for vector in given.values()],
        )
        self._new_vectors.clear()
        self._rows(
            "UPDATE vectors v SET living = new.living FROM unnest(%s::bigint[], %s::boolean[]) AS new (photo, living) "
            "WHERE v.photo = new.photo AND v.living != new.living",
            *(list(photos), [living for _, living in photos.values()]),
        )

    def _renew_words(self, now: dict[int, tuple[int, frozenset[str]]], ids: Sequence[int]) -> None:
        """Writes the words of photographs where they differ from those that are there, and counts them again."""
        stored = self._rows(
            "SELECT photo, bundle, tsvector_to_array(words) FROM words WHERE photo = ANY(%s)", list(ids)
        )
        was = {photo: (bundle, frozenset(found)) for photo, bundle, found in stored}
        changed = [id_ for id_ in ids if was.get(id_) != now.get(id_)]
        if not changed:
            return
        old = [was[id_] for id_ in changed if id_ in was]
        new = [now[id_] for id_ in changed if id_ in now]
        self._rows("DELETE FROM words WHERE photo = ANY(%s)", changed)
        self._rows(  # the words of a photograph are one text: arrays in an array have the same length
            "INSERT INTO words SELECT photo, bundle, array_to_tsvector(string_to_array(words, ' ')) "
            "FROM unnest(%s::bigint[], %s::integer[], %s::text[]) AS new (photo, bundle, words)",
            [id_ for id_ in changed if id_ in now],
            [bundle for bundle, _ in new],
            [" ".join(found) for _, found in new],
        )
        self._add("bundles", "id", "living", "integer", _difference([b for b, _ in side] for side in (new, old)))
        counted = _difference([word for _, found in side for word in found] for side in (new, old))
        self._add("facts", "name", "value", "text", {"words": sum(counted.values())})
        self._rows(
            "INSERT INTO frequencies SELECT * FROM unnest(%s::text[], %s::bigint[]) "
            "ON CONFLICT (word) DO UPDATE SET photos = frequencies.photos + excluded.photos",
            *(list(counted), list(counted.values())),
        )

    def _count(self, before: Sequence[tuple[Any, ...]], after: Sequence[tuple[Any, ...]]) -> None:
        """Adds to the facts what became of files, given as photograph, error and whether they are missing."""
        kinds = ([kind for _, error, gone in side for kind in _kinds(error, gone)] for side in (after, before))
        self._add("facts", "name", "value", "text", _difference(kinds))

    def _add(self, table: str, key: str, column: str, kind: str, counts: dict[Any, int]) -> None:
        self._rows(
            f"UPDATE {table} SET {column} = {column} + more "
            f"FROM unnest(%s::{kind}[], %s::bigint[]) AS new (which, more) WHERE {key} = which",
            *(list(counts), list(counts.values())),
        )

    def _rows(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        cursor = self._connection.execute(statement, values, binary=True)
        return cursor.fetchall() if cursor.description else NO_ROWS


def _kinds(error: str, missing: bool) -> tuple[str, ...]:
    """Returns the facts that count a file."""
    if missing:
        return ("missing",)
    return ("files", "errors") if error else ("files",)


def _difference(sides: Iterable[Iterable[Any]]) -> dict[Any, int]:
    """Returns how many more of each there are on the first side than on the second, where that is not 0."""
    new, old = map(Counter, sides)
    new.subtract(old)
    return {each: count for each, count in sorted(new.items()) if count}


def _words(sentences: str) -> frozenset[str]:
    found = words.folded(each.text for each in as_sentences(sentences)).split(" ")
    return frozenset(word for word in found if word and len(word.encode()) <= LONGEST)


def _numbers(vector: np.ndarray) -> str:
    """Returns an int8 direction as pgvector reads it; halves are exact for its numbers."""
    return str(vector.tolist())
