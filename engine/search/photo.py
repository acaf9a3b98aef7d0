"""What an index keeps of photographs, and what a search returns. Knows no database."""

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import nan
from typing import Any

import numpy as np

from engine.result import Caption

URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")


@dataclass(frozen=True, slots=True)
class Sentence:
    """A caption in an index. log_prob and confidence are as in Hypothesis."""

    text: str
    log_prob: float
    confidence: float = nan


@dataclass(frozen=True, slots=True)
class Photo:
    """A photograph in an index, whose captions are by one bundle.

    id: the same as long as the photograph is in the index. paths: of the files with these bytes that exist, sorted;
    there are several if there are copies, and URIs of images in object stores count as existing. sha256: of those
    bytes. size: in bytes. modified: of the first file, in seconds since 1970. alternatives: best first, including the
    caption itself.
    """

    id: int
    paths: tuple[str, ...]
    sha256: str
    size: int
    modified: float
    alternatives: tuple[Sentence, ...]

    @property
    def path(self) -> str:
        """The first of its paths; "" if no file is left."""
        return self.paths[0] if self.paths else ""

    @property
    def text(self) -> str:
        """Its caption."""
        return self.alternatives[0].text

    @property
    def confidence(self) -> float:
        """The confidence in its caption, NaN if the bundle is not calibrated."""
        return self.alternatives[0].confidence

    def as_json(self) -> dict[str, Any]:
        """Returns it as JSON values."""
        return {
            "id": self.id,
            "paths": [path.encode(errors="backslashreplace").decode() for path in self.paths],
            "sha256": self.sha256,
            "size": self.size,
            "modified": self.modified,
            "text": self.text,
            "confidence": None if np.isnan(self.confidence) else self.confidence,
            "alternatives": [{"text": each.text, "log_prob": each.log_prob} for each in self.alternatives],
        }


@dataclass(frozen=True, slots=True)
class Found:
    """A photograph that a search found. score: higher is better; scores of different queries cannot be compared."""

    photo: Photo
    score: float


@dataclass(frozen=True, slots=True)
class Results(Sequence[Found]):
    """What a search found, best first.

    left_out: photographs that were not searched, because another bundle captioned them.
    """

    found: tuple[Found, ...]
    left_out: int = 0

    def __len__(self) -> int:
        return len(self.found)

    def __iter__(self) -> Iterator[Found]:
        return iter(self.found)

    def __getitem__(self, place: Any) -> Any:
        return self.found[place]


@dataclass(frozen=True, slots=True)
class Described:
    """What is stored of a photograph's bytes. features: float16 of any shape; vector: int8
    (vector_size,), a direction; None if the bundle has none.
    """

    digest: bytes
    sentences: tuple[Sentence, ...]
    features: np.ndarray
    vector: np.ndarray | None


@dataclass(frozen=True, slots=True)
class File:
    """What is stored of a file.

    path: may be a URI, of an image in an object store or a table. Whether that exists is not asked, so it never counts
    as missing. digest: SHA-256 of its bytes; b"" where they could not be read. error: "" if it has a caption.
    modified: in nanoseconds since 1970; 0 if its source does not say.
    """

    path: bytes
    size: int
    modified: int
    digest: bytes
    error: str = ""


@dataclass(frozen=True, slots=True)
class Known:
    """What an index knows of a file. current: whether its photograph has captions by the bundle in use."""

    size: int
    modified: int
    error: str
    current: bool
    missing: bool


@dataclass(frozen=True, slots=True)
class Counts:
    """Numbers of an index. photos: with a file that exists. files: that exist. errors: of these, without a caption.

    missing: files that are gone. other_bundles: of the photos, those that another bundle than the one in use captioned.
    """

    photos: int
    files: int
    errors: int
    missing: int
    other_bundles: int


def sentences_of(caption: Caption) -> tuple[Sentence, ...]:
    """Returns a caption's hypotheses, each text once."""
    by_text: dict[str, Sentence] = {}
    for each in caption.alternatives:
        by_text.setdefault(each.text, Sentence(each.text, each.log_prob, each.confidence))
    return tuple(by_text.values())


def as_stored(path: str | os.PathLike[str]) -> bytes:
    """Returns the path of a file as an index stores it: absolute, in the bytes of the file system."""
    return os.fsencode(os.path.abspath(path))  # noqa: PTH100 - without following links


def is_uri(path: str) -> bool:
    """Returns whether it names an image elsewhere than in this machine's file system."""
    return URI.match(path) is not None


def as_asked(path: str | os.PathLike[str]) -> bytes:
    """Returns a path or URI that an index is asked about, as it is stored."""
    return os.fsencode(path) if isinstance(path, str) and is_uri(path) else as_stored(path)


def shown(path: bytes) -> str:
    """Returns a stored path as Python names files."""
    return os.fsdecode(path)
