"""PhotoIndex: photographs in, found by words or by likeness. Store and ranking do the work."""

import os
import threading
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, cast

import numpy as np

from engine.captioner import Captioner
from engine.errors import ImageError, OptionsError
from engine.images.load import ImageInput
from engine.images.paths import Scan
from engine.runtime.vectors import Vectors
from engine.search import ranking
from engine.search.address import place_for_people
from engine.search.indexing import Added, Indexing, stamp
from engine.search.photo import Counts, Found, Photo, Results, as_asked, is_uri, shown
from engine.search.place import default_index, open_store
from engine.search.store import BundleKey, Store
from engine.search.table import best
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
    others again. place: what messages call the index, without a password.

    Raises StoreError.
    """

    def __init__(self, path: str | Path | None = None, captioner: Captioner | None = None) -> None:
        self.path = str(default_index() if path is None else path)
        self.place = place_for_people(self.path)
        self.captioner = captioner or Captioner()
        self._model = self.captioner.model
        self._key = BundleKey.of(self.captioner.bundle)
        self._vectors = Vectors(self.captioner.bundle) if self._key.vector_size else None
        self._lock = threading.RLock()  # opening
        self._stores: list[Store] = []  # the last is in use; one before it may be, in another thread
        self._writable = False

    def __enter__(self) -> "PhotoIndex":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Closes the database."""
        with self._lock:
            while self._stores:
                self._stores.pop().close()

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
        store = self._opened()
        sentence = ranking.known_words(self.captioner.bundle.vocabulary, text)
        compares = self._vectors is not None and len(sentence) > 2  # the vector of unknown words means nothing
        vector = self._vectors.of_texts([text])[0] if self._vectors and compares else np.zeros(self._key.vector_size)
        frequencies = store.frequencies([word for term in terms for word in term.all])
        matching = store.candidates(ranking.rare_words(terms, frequencies), max(2 * limit, ranking.MATCHING))
        cosines = store.cosines(vector, matching)
        if compares:
            cosines |= store.nearest(vector, max(limit, ranking.NEAREST))
        ids, counts = sorted(cosines), store.counts()
        folded = store.folded(ids)
        rarity = ranking.rarities(terms, frequencies, counts.photos)
        scores = ranking.OVERLAP * ranking.overlaps(terms, rarity, [folded.get(id_, "") for id_ in ids])
        scores += np.array([cosines[id_] for id_ in ids], np.float32)
        if len(sentence) > 2 and ids:
            scores = self._reranked(store, sentence, ids, scores)
        order = best(scores, limit)
        return _results(store, {ids[place]: float(scores[place]) for place in order}, counts)

    def similar(self, image: ImageInput | int, limit: int = 20) -> Results:
        """Returns the photographs that are most like an image, best first; not the image itself if it is indexed.

        image: what Captioner.caption takes, or the id of a photograph in the index. Raises ImageError, and OptionsError
        for an unknown id, or if the bundle has no vectors.
        """
        _require_limit(limit)
        if self._vectors is None:
            raise OptionsError(f"the bundle {self._key.name} has no vectors, so it cannot compare photographs")
        store = self._opened()
        known = _unchanged(store, as_asked(image)) if isinstance(image, str | os.PathLike) else None
        if isinstance(image, int):
            known = image
        vector = store.vector(known) if known is not None else None
        if isinstance(image, int) and vector is None:
            raise OptionsError(f"there is no photograph {image} in the index")
        if vector is None:
            try:
                features = self.captioner.encode([cast(ImageInput, image)])
            except ImageError as error:
                raise error.at(None) from error  # there is only one
            (vector,) = self._vectors.of_features(features)
        cosines = store.nearest(vector, limit + 1)  # the image itself may be among them
        cosines.pop(known or 0, None)  # ids begin at 1
        return _results(store, dict(list(cosines.items())[:limit]), store.counts())

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

    def _reranked(self, store: Store, sentence: Sequence[int], ids: list[int], scores: np.ndarray) -> np.ndarray:
        """Returns scores with the likelihood of a sentence in them, computed for the best; the others stay after these.

        Photographs for which it is not computed count as the least likely of the best.
        """
        first = best(scores, ranking.RERANKED)
        likely = ranking.likelihoods(self._model, sentence, store.features([ids[place] for place in first]))
        reranked: np.ndarray = scores + ranking.LIKELIHOOD * likely.min()
        reranked[first] = scores[first] + ranking.LIKELIHOOD * likely
        others = np.ones(len(ids), bool)
        others[first] = False
        reranked[others] = np.minimum(
            reranked[others], reranked[first].min() - 1e-4 * (1 + scores.max() - scores[others])
        )
        return reranked

    def _opened(self, *, writable: bool = False) -> Store:
        with self._lock:
            if not self._stores or (writable and not self._writable) or self._stores[-1].was_replaced():
                self._stores.append(open_store(self.path, self._key, create=writable))
                self._writable = writable
            return self._stores[-1]


def _results(store: Store, scores: dict[int, float], counts: Counts) -> Results:
    """Returns the photographs with these scores by id, best first."""
    photos = [photo for photo in store.photos(list(scores)) if photo.paths]
    return Results(tuple(Found(photo, scores[photo.id]) for photo in photos), counts.other_bundles)


def _unchanged(store: Store, path: bytes) -> int | None:
    """Returns the photograph of a file that is as it was when it was indexed, or of a URI."""
    was = store.known([path]).get(path)
    if was is None or not (is_uri(shown(path)) or stamp(path) == (was.size, was.modified)):
        return None
    return store.id_of(path)


def _require_limit(limit: int) -> None:
    fits = is_int(limit, 1) and limit <= MOST
    require(fits, "", "limit", limit, f"a whole number from 1 to {MOST:,}")
