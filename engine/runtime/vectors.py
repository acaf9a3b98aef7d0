"""Vectors of images and of texts in one space: the closer two are, the better one describes the other.

Runs the graphs image_vector and text_vector of a bundle on the CPU, where a query takes less time than its way to a
GPU. Knows nothing of indexes or rankings.
"""

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np

from engine.bundle.bundle import Bundle
from engine.bundle.vocabulary import pad_matrix
from engine.errors import BundleError, OptionsError
from engine.runtime.options import RuntimeOptions
from engine.runtime.providers import PROVIDERS
from engine.runtime.sessions import open_session

MOST_WORDS = 60
"""The words of a longer text after these are not read: captions, on which the space was trained, are shorter."""
TEXTS, IMAGES = 64, 1024
"""Most texts and images of one run, which limits its memory."""


class Vectors:
    """The space of a bundle; threads may share it. Vectors have unit length, so their product is their cosine."""

    def __init__(self, bundle: Bundle, *, threads: int = 0) -> None:
        """Opens a graph when it is first needed. threads: of the processor; 0 is one for each core.

        Raises BundleError for a bundle without vectors.
        """
        if not bundle.manifest.vector_size:
            raise BundleError(
                f"the model {bundle.manifest.name} has no vectors of images and texts, so it cannot search: use a "
                "bundle to which `python -m export.to_onnx --joint` has added them"
            )
        self.size = bundle.manifest.vector_size
        self._bundle = bundle
        self._options = RuntimeOptions(threads=threads)
        self._opened: dict[str, Any] = {}
        self._opening = threading.Lock()

    def of_features(self, features: np.ndarray) -> np.ndarray:
        """Returns the vectors of images: float32 (images, vector_size).

        features: (images, *feature_shape), as the encoder gives them, in any float type. Raises OptionsError for
        another shape.
        """
        features, shape = np.asarray(features), self._bundle.manifest.feature_shape
        if features.shape[1:] != shape or not features.shape:
            takes = ", ".join(map(str, shape))
            raise OptionsError(f"features have shape {features.shape}; this bundle takes (images, {takes})")
        vectors = np.empty((len(features), self.size), np.float32)
        for i in range(0, len(features), IMAGES):
            part = np.ascontiguousarray(features[i : i + IMAGES], np.float32)
            vectors[i : i + IMAGES] = self._run("image_vector", {"features": part})
        return vectors

    def of_texts(self, texts: Sequence[str]) -> np.ndarray:
        """Returns the vectors of texts: float32 (texts, vector_size).

        All unknown words count as the same one. A text without a known word has a vector too, which means nothing.
        Raises OptionsError for what is no text, and for unknown words if the vocabulary has none that stands for them.
        """
        texts = [texts] if isinstance(texts, str) else list(texts)
        if wrong := [text for text in texts if not isinstance(text, str)]:
            raise OptionsError(f"texts must be text, and one of them is {wrong[0]!r}")
        words = self._bundle.vocabulary
        try:
            sentences = [words.encode(text, MOST_WORDS) for text in texts]
        except ValueError as error:
            raise OptionsError(str(error)) from error
        lengths = np.array([len(sentence) for sentence in sentences], np.int64)
        vectors = np.empty((len(texts), self.size), np.float32)
        order = np.argsort(lengths, kind="stable")  # like lengths together: less padding
        for i in range(0, len(order), TEXTS):
            rows = order[i : i + TEXTS]
            token_ids = pad_matrix([sentences[row] for row in rows], words.pad_id)
            vectors[rows] = self._run("text_vector", {"token_ids": token_ids, "lengths": lengths[rows]})
        return vectors

    def _run(self, name: str, inputs: dict[str, np.ndarray]) -> np.ndarray:
        with self._opening:
            if name not in self._opened:
                graph = self._bundle.graph(name)
                self._opened[name] = open_session(self._bundle.path, graph, PROVIDERS["cpu"], self._options)
        found: np.ndarray = self._opened[name].run(["vectors"], inputs)[0]
        return found
