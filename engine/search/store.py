"""What an index of photographs needs of the database that holds it. Knows no database and no model."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from engine.bundle.bundle import MANIFEST_FILE, Bundle, sha256
from engine.search.photo import Counts, Described, File, Known, Photo


@dataclass(frozen=True, slots=True)
class BundleKey:
    """Which bundle captions are by, and the size of what it gives for a photograph. digest: of its manifest."""

    name: str
    digest: str
    feature_shape: tuple[int, ...]
    vector_size: int

    @classmethod
    def of(cls, bundle: Bundle) -> "BundleKey":
        """Returns the key of a bundle. Its manifest has the SHA-256 of every other file."""
        manifest = bundle.manifest
        return cls(manifest.name, sha256(bundle.path / MANIFEST_FILE), manifest.feature_shape, manifest.vector_size)


@dataclass(frozen=True, slots=True)
class Changes:
    """Photographs of one bundle that were written since a revision.

    revision: of the newest. ids: int64 (photos,). living: bool (photos,), whether a file of it exists. vectors: int8
    (photos, vector_size), directions.
    """

    revision: int
    ids: np.ndarray
    living: np.ndarray
    vectors: np.ndarray


class Store(ABC):
    """A database with photographs and files, opened for one bundle. Threads may share it.

    Photographs are what files contain, so copies are one photograph, which keeps its id wherever its files move. One
    whose files are all gone is kept, and found by no search. Whatever is written at once is there entirely or not at
    all, whenever the process ends, and several processes may read and write. Methods raise StoreError.
    """

    place: str
    """Where it is, for people."""

    @abstractmethod
    def known(self, paths: Sequence[bytes]) -> dict[bytes, Known]:
        """Returns what is known of files, of those that are known."""

    @abstractmethod
    def described(self, digests: Sequence[bytes]) -> set[bytes]:
        """Returns those of the digests whose photographs have captions by this bundle."""

    @abstractmethod
    def write(self, described: Sequence[Described], files: Sequence[File]) -> None:
        """Writes photographs and files at once, in place of what was known of them.

        Each file without an error belongs to a photograph that is described here or was before.
        """

    @abstractmethod
    def files_in(self, folder: bytes) -> list[bytes]:
        """Returns the files that exist, as far as is known, in a folder and below it."""

    @abstractmethod
    def mark_missing(self, paths: Iterable[bytes]) -> None:
        """Marks files as gone."""

    @abstractmethod
    def candidates(self, words: Sequence[str], limit: int) -> list[int]:
        """Returns ids of photographs with any of these folded words in their captions, the best by BM25 first.

        They may be by any bundle; each has a file that exists.
        """

    @abstractmethod
    def frequencies(self, words: Sequence[str]) -> dict[str, int]:
        """Returns how many photographs have each of these folded words in their captions; 0 for none."""

    @abstractmethod
    def folded(self, ids: Sequence[int]) -> dict[int, str]:
        """Returns the folded words of photographs, by id."""

    @abstractmethod
    def changes(self, since: int) -> Changes:
        """Returns the photographs of this bundle that were written after a revision; 0: all.

        After a revision, those that another bundle has captioned meanwhile are among them, as not living.
        """

    @abstractmethod
    def nearest(self, vector: np.ndarray, limit: int) -> dict[int, float]:
        """Returns the cosines, by id, of the photographs whose vectors are nearest to a unit vector, best first.

        vector: float32 (vector_size,). Only photographs of this bundle with a file that exists are compared; none are
        if the bundle has no vectors. A large library may be searched approximately, but cosines are exact.
        """

    @abstractmethod
    def cosines(self, vector: np.ndarray, ids: Sequence[int]) -> dict[int, float]:
        """Returns the cosines with a unit vector of those of the photographs that `nearest` would compare.

        If the bundle has no vectors, they are 0: this tells which photographs are of this bundle and have a file.
        """

    @abstractmethod
    def vector(self, id_: int) -> np.ndarray | None:
        """Returns the unit vector, float32 (vector_size,), of a photograph that `nearest` would compare, or None."""

    @abstractmethod
    def features(self, ids: Sequence[int]) -> np.ndarray:
        """Returns the features of photographs, in this order: float32 (photos, *feature_shape).

        They are zeros for one that another process has just captioned by another bundle; `photos` leaves it out.
        """

    @abstractmethod
    def photos(self, ids: Sequence[int]) -> list[Photo]:
        """Returns those of the photographs that are of this bundle, in this order."""

    @abstractmethod
    def id_of(self, path: bytes) -> int | None:
        """Returns the photograph of a file; None if it is unknown, gone or without a caption."""

    @abstractmethod
    def counts(self) -> Counts:
        """Returns the numbers of this index."""

    def was_replaced(self) -> bool:
        """Returns whether another index is at its place now, so that this one has to be opened again."""
        return False

    @abstractmethod
    def close(self) -> None:
        """Closes it; it cannot be used any more."""
