"""What an index has to know, in plain dictionaries: the stores are held against it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from math import log

import numpy as np

from engine.search.photo import Counts, Described, File, Known
from engine.search.store import BundleKey
from engine.search.words import folded


@dataclass
class ModelIndex:
    """Photographs by digest, each with the name of its bundle, and files by path, each with whether it is missing."""

    photos: dict[bytes, tuple[BundleKey, Described]] = field(default_factory=dict)
    files: dict[bytes, tuple[File, bool]] = field(default_factory=dict)

    def write(self, key: BundleKey, described: Sequence[Described], files: Sequence[File]) -> None:
        self.photos |= {each.digest: (key, each) for each in described}
        self.files |= {file.path: (file, False) for file in files}

    def mark_missing(self, paths: Iterable[bytes]) -> None:
        self.files |= {path: (self.files[path][0], True) for path in paths if path in self.files}

    def known(self, key: BundleKey) -> dict[bytes, Known]:
        return {
            path: Known(
                file.size,
                file.modified,
                file.error,
                not file.error and self.photos[file.digest][0] == key,
                missing,
            )
            for path, (file, missing) in self.files.items()
        }

    def of(self, key: BundleKey) -> dict[bytes, Described]:
        return {digest: each for digest, (by, each) in self.photos.items() if by == key}

    def files_of(self, digest: bytes) -> list[File]:
        found = [file for file, missing in self.files.values() if not missing and not file.error]
        return sorted((file for file in found if file.digest == digest), key=lambda file: file.path)

    def living(self, key: BundleKey | None = None) -> dict[bytes, Described]:
        found = {digest: each for digest, (by, each) in self.photos.items() if key in (None, by)}
        return {digest: each for digest, each in found.items() if self.files_of(digest)}

    def words(self) -> dict[bytes, list[str]]:
        """The folded words of each photograph that is searched."""
        return {
            digest: folded(sentence.text for sentence in each.sentences).split()
            for digest, each in self.living().items()
        }

    def bm25(self, query: Sequence[str]) -> dict[bytes, float]:
        """The score of each photograph that has a word of a query, as SQLite's documentation has the formula."""
        texts = self.words()
        mean = sum(map(len, texts.values())) / max(len(texts), 1)
        scores = {}
        for digest, text in texts.items():
            if said := set(query) & set(text):
                having = [sum(word in other for other in texts.values()) for word in said]
                weights = [max(log((len(texts) - n + 0.5) / (n + 0.5)), 1e-6) for n in having]
                scores[digest] = sum(weights) * 2.2 / (1 + 1.2 * (0.25 + 0.75 * len(text) / mean))
        return scores

    def cosines(self, key: BundleKey, vector: np.ndarray) -> dict[bytes, float]:
        found = {}
        for digest, each in self.living(key).items():
            if each.vector is not None:
                stored = each.vector.astype(np.float64)
                found[digest] = float(stored @ vector / np.linalg.norm(stored))
        return found

    def counts(self, key: BundleKey) -> Counts:
        there = [file for file, missing in self.files.values() if not missing]
        living = self.living()
        return Counts(
            len(living),
            len(there),
            sum(bool(file.error) for file in there),
            len(self.files) - len(there),
            len(living) - len(self.living(key)),
        )
