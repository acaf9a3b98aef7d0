"""PhotoIndex: photographs in, found by words or by likeness. Store and ranking do the work."""

import os
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

import numpy as np

from engine.captioner import Captioner
from engine.errors import OptionsError
from engine.images.load import ImageInput
from engine.images.paths import Scan
from engine.runtime.vectors import Vectors
from engine.search import ranking
from engine.search.indexing import Added, Indexing
from engine.search.photo import Counts, Found, Photo, Results, as_asked
from engine.search.place import default_index, open_store
from engine.search.store import BundleKey, Store
from engine.search.table import VectorTable, best
from engine.search.thumbnails import SIDE, open_photo, thumbnail
from engine.search.words import terms_of
from engine.validation import is_int, require

MOST = 10_000  # results of a search
SIDES = 16, 4096  # of a thumbnail, least and most


class PhotoIndex:
    """Photographs that are found by words. Threads and processes may share one; close it, or use it as a context.

    path: a file, which `add` makes if there is none, or "postgresql://…" with the extra `postgres`; None is one file in
    the user's data folder. captioner: what captions photographs and reads queries; by default Captioner(). An index can
    have photographs of several bundles, but only those of this captioner's bundle are searched; `add` captions the
    others again.

    Raises StoreError.
    """

    def __init__(self, path: str | Path | None = None, captioner: Captioner | None = None) -> None:
        self.path = str(default_index() if path is None else path)
        self.captioner = captioner or Captioner()
        self._model = self.captioner.model
        self._key = BundleKey.of(self.captioner.bundle)
        self._vectors = Vectors(self.captioner.bundle) if self._key.vector_size else None
        self._lock = threading.RLock()  # opening and the table
        self._store: Store | None = None
        self._writable = False
        self._table = VectorTable(self._key.vector_size)
        self._left_out = 0

    def __enter__(self) -> "PhotoIndex":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Closes the database."""
        with self._lock:
            if self._store:
                self._store.close()
            self._store = None

    def add(
        self,
        paths: Iterable[str | os.PathLike[str]],
        *,
        report: Callable[[Added], None] = lambda added: None,
        retry: bool = False,
    ) -> Added:
        """Captions photographs that the index does not have yet; returns what became of each file.

        paths: of files and folders, with their subfolders. Unchanged files are not read again; a file that moved or was
        copied is recognised by its bytes. Files that are gone from the folders are found no more. What is done when
        this ends, in whatever way, stays done. report: called as files end, with what `add` returns in the end. retry:
        files that had an error are read again.
        """
        if isinstance(paths, str | os.PathLike):
            raise OptionsError(f"add() takes several paths, but got one: pass [{str(paths)!r}]")
        scan = Scan()
        vectors = self._vectors.of_features if self._vectors else None
        store = self._opened(writable=True)
        indexing = Indexing(store, self._model, vectors, scan, report=report, retry=retry)
        return indexing.run([os.fspath(path) for path in paths])

    def add_parquet(
        self,
        output: str | os.PathLike[str],
        *,
        root: str | os.PathLike[str] | None = None,
        report: Callable[[Added], None] = lambda added: None,
    ) -> Added:
        """Takes over what `python -m serving.ray_data --features` wrote; returns what became of each of its images.

        output: its OUTPUT, a folder or a URI. root: the folder or URI of the images, if they are elsewhere now than
        when they were captioned. Nothing is captioned here, and what the index has already is not written again. Files
        that changed since are left to `add`. Raises OptionsError for captions without features or by another bundle,
        and if pyarrow is missing (extra `ray`).
        """
        from engine.search.parquet import ParquetImport  # pyarrow is imported only here
        from engine.search.parquet_output import ParquetOutput

        read = ParquetOutput(os.fspath(output), self._key)
        vectors = self._vectors.of_features if self._vectors else None
        where = None if root is None else os.fspath(root)
        store = self._opened(writable=True)
        return ParquetImport(store, self._key, vectors, read, root=where, report=report).run()

    def search(self, text: str, limit: int = 20) -> Results:
        """Returns the photographs that fit a text best, best first. Raises OptionsError for a text without words."""
        _require_limit(limit)
        terms = terms_of(text)
        store, table = self._fresh()
        cosines = self._cosines(table, text)
        frequencies = store.frequencies([word for term in terms for word in term.all])
        words = ranking.rare_words(terms, frequencies)
        matching = table.rows_of(store.candidates(words, max(2 * limit, ranking.MATCHING)))
        nearest = best(cosines, max(limit, ranking.NEAREST)) if self._vectors else np.empty(0, np.int64)
        rows = np.unique(np.concatenate([matching, nearest]))
        if not len(rows):
            return self._results(store, table.ids[rows], np.empty(0), limit)
        ids = table.ids[rows].tolist()
        folded = store.folded(ids)
        rarity = ranking.rarities(terms, frequencies, len(table))
        scores = ranking.OVERLAP * ranking.overlaps(terms, rarity, [folded.get(id_, "") for id_ in ids])
        if self._vectors:
            scores = scores + cosines[rows]
        scores = self._reranked(store, text, table.ids[rows], scores)
        return self._results(store, table.ids[rows], scores, limit)

    def similar(self, image: ImageInput | int, limit: int = 20) -> Results:
        """Returns the photographs that are most like an image, best first; not the image itself if it is indexed.

        image: what Captioner.caption takes, or the id of a photograph in the index. Raises ImageError, and OptionsError
        for an unknown id, or if the bundle has no vectors.
        """
        _require_limit(limit)
        if self._vectors is None:
            raise OptionsError(f"the bundle {self._key.name} has no vectors, so it cannot compare photographs")
        store, table = self._fresh()
        known = store.id_of(as_asked(image)) if isinstance(image, str | os.PathLike) else None
        rows = table.rows_of([image if isinstance(image, int) else known or 0])  # ids begin at 1
        if len(rows):
            vector = table.vectors[rows[0]]
        elif isinstance(image, int):
            raise OptionsError(f"there is no photograph {image} in the index")
        else:
            (vector,) = self._vectors.of_features(self.captioner.encode([image]))
        cosines = table.similarities(vector)
        cosines[rows] = -np.inf
        nearest = best(cosines, limit)
        return self._results(store, table.ids[nearest], cosines[nearest], limit)

    def caption(self, path: str | os.PathLike[str]) -> Photo | None:
        """Returns the photograph in a file, with its caption; None if the index does not have it.

        path: as it was indexed, or the URI of an image that was captioned elsewhere.
        """
        store = self._opened()
        known = store.id_of(as_asked(path))
        return self.photo(known) if known is not None else None

    def photo(self, id_: int) -> Photo | None:
        """Returns a photograph by its id; None if it is unknown, or by another bundle."""
        return next(iter(self._opened().photos([id_])), None)

    def open_file(self, id_: int) -> BinaryIO:
        """Opens the file of a photograph; the caller closes it.

        Only a file whose bytes are still those that were indexed is opened, of several copies the first. Raises
        OptionsError for an unknown id, and ImageError if all its files are gone or were changed.
        """
        return open_photo(self._require_photo(id_))

    def thumbnail(self, id_: int, side: int = SIDE) -> bytes:
        """Returns a photograph, upright, as a JPEG whose longer side has `side` pixels.

        It is made once and kept under `thumbnails` in the cache folder, which holds 1 GiB of them and may be deleted.
        Raises OptionsError for an unknown id, and ImageError if its files are gone or cannot be read by the captioner.
        """
        least, most = SIDES
        require(is_int(side, least) and side <= most, "", "side", side, f"a whole number from {least} to {most:,}")
        captioner = self.captioner
        return thumbnail(self._require_photo(id_), side, max_pixels=captioner.max_pixels, formats=captioner.formats)

    def counts(self) -> Counts:
        """Returns how many photographs and files there are."""
        return self._opened().counts()

    def _require_photo(self, id_: int) -> Photo:
        photo = self.photo(id_)
        if photo is None:
            raise OptionsError(f"there is no photograph {id_} in the index")
        return photo

    def _cosines(self, table: VectorTable, text: str) -> np.ndarray:
        if self._vectors is None:
            return np.zeros(len(table.ids), np.float32)
        (vector,) = self._vectors.of_texts([text])
        return table.similarities(vector)

    def _reranked(self, store: Store, text: str, ids: np.ndarray, scores: np.ndarray) -> np.ndarray:
        """Returns scores with the likelihood of a text in them; those that it is not computed for come after."""
        sentence = ranking.known_words(self.captioner.bundle.vocabulary, text)
        if len(sentence) == 2:  # it knows none of the words
            return scores
        first = best(scores, ranking.RERANKED)
        likely = ranking.likelihoods(self._model, sentence, store.features(ids[first].tolist()))
        reranked: np.ndarray = scores - scores.max() - 100.0  # after all others
        reranked[first] = scores[first] + ranking.LIKELIHOOD * likely
        return reranked

    def _results(self, store: Store, ids: np.ndarray, scores: np.ndarray, limit: int) -> Results:
        order = best(scores, limit)
        found = ids[order].tolist()
        score = dict(zip(found, scores[order].tolist(), strict=True))
        photos = [photo for photo in store.photos(found) if photo.paths]
        return Results(tuple(Found(photo, score[photo.id]) for photo in photos), self._left_out)

    def _fresh(self) -> tuple[Store, VectorTable]:
        """Returns the store, and the table with all that was written until now."""
        with self._lock:
            store = self._opened()
            changes = store.changes(self._table.revision)
            if changes.revision != self._table.revision:
                self._table.update(changes)
                self._left_out = store.counts().other_bundles
            return store, self._table.snapshot()

    def _opened(self, *, writable: bool = False) -> Store:
        with self._lock:
            if self._store and (self._writable or not writable):
                return self._store
            opened = open_store(self.path, self._key, create=writable)
            if self._store:
                self._store.close()
            self._store, self._writable = opened, writable
            return opened


def _require_limit(limit: int) -> None:
    fits = is_int(limit, 1) and limit <= MOST
    require(fits, "", "limit", limit, f"a whole number from 1 to {MOST:,}")
