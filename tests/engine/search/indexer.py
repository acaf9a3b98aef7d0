"""A process that indexes a folder with a stand-in for the model: for tests that end it, or start several.

Run as `python -m tests.engine.search.indexer PLACE FOLDER`; prints a line for each batch that is written.
"""

import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, cast

import numpy as np

from engine.images.paths import Scan
from engine.images.pipeline import Encoded
from engine.model import Model
from engine.result import Caption, Hypothesis
from engine.search.indexing import Added, Indexing
from engine.search.place import open_store
from engine.search.store import BundleKey

KEY = BundleKey("stand-in", "0" * 64, (4,), 4)
BATCH = 4


def features_of(content: bytes) -> np.ndarray:
    """Four numbers that tell what was in a file."""
    return np.frombuffer(content.ljust(4, b"\x01")[:4], np.uint8).astype(np.float32)


def text_of(features: np.ndarray) -> str:
    return " ".join(f"word{int(number)}" for number in features)


class StandIn:
    """Encodes files as their first bytes and names these as their captions."""

    def encode_batches(self, images: Iterable[bytes], *, fail: bool) -> Iterator[Encoded]:
        waiting = iter(images)
        while batch := list(islice(waiting, BATCH)):
            time.sleep(0.01)  # however fast the machine, there is time to end the process in between
            yield Encoded((None,) * len(batch), np.stack([features_of(content) for content in batch]))

    def caption_features(self, features: np.ndarray, decoding: Any) -> list[Caption]:
        return [Caption.best_of([Hypothesis(text_of(row), -1.0, -2.0, (), (), True)]) for row in features]


def index(place: str, folders: Sequence[str]) -> Added:
    def report(added: Added) -> None:
        print(added.captioned, flush=True)

    store = open_store(place, KEY, create=True)
    try:
        vectors = lambda features: features / np.linalg.norm(features, axis=1, keepdims=True)  # noqa: E731
        return Indexing(store, cast(Model, StandIn()), vectors, Scan(), report=report).run(folders)
    finally:
        store.close()


if __name__ == "__main__":
    index(sys.argv[1], sys.argv[2:])
