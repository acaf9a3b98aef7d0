"""How photographs are written in a database's rows. Knows no database."""

import json
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from engine.search.photo import Photo, Sentence, shown


def as_json(sentences: Sequence[Sentence]) -> str:
    """Returns sentences as the text that is stored."""
    return as_text(
        json.dumps(
            [[each.text, round(each.log_prob, 4), None if np.isnan(each.confidence) else round(each.confidence, 4)]
             for each in sentences],
            ensure_ascii=False, separators=(",", ":"),
        )
    )  # fmt: skip


def as_sentences(stored: str) -> tuple[Sentence, ...]:
    """Reads what `as_json` wrote."""
    return tuple(
        Sentence(text, log_prob, np.nan if confidence is None else confidence)
        for text, log_prob, confidence in json.loads(stored)
    )


def as_text(text: str) -> str:
    """Returns a text with what databases do not keep in one, lone surrogates and NUL, written as an escape."""
    return text.encode(errors="backslashreplace").decode().replace("\0", "\\x00")


def photo_of(row: Sequence[Any], files: Iterable[tuple[Any, ...]]) -> Photo:
    """Makes a photograph of its id, digest and stored sentences, and of the path, size and time of each file."""
    id_, digest, stored = row
    ordered = sorted(files)
    size, modified = ordered[0][1:] if ordered else (0, 0)
    paths = tuple(shown(bytes(path)) for path, *_ in ordered)
    return Photo(id_, paths, bytes(digest).hex(), size, modified / 1e9, as_sentences(stored))


def features_of(ids: Sequence[int], found: dict[int, bytes], shape: tuple[int, ...]) -> np.ndarray:
    """Returns stored features in the order of these ids: float32 (photos, *shape); zeros for those not found."""
    none = bytes(2 * int(np.prod(shape)))
    flat = np.frombuffer(b"".join(found.get(id_, none) for id_ in ids), np.float16)
    return flat.reshape(len(ids), *shape).astype(np.float32)
