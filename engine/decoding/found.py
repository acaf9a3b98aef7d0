"""What a search has found so far, gathered while it runs and ranked once at its end. Searches nothing itself."""

from typing import NamedTuple

import numpy as np

from engine.decoding.hypotheses import Hypotheses, normalise


class _Sentences(NamedTuple):
    """Sentences of one length."""

    images: np.ndarray  # (sentences,)
    tokens: np.ndarray  # (sentences, length)
    token_log_probs: np.ndarray  # (sentences, length)
    scores: np.ndarray  # (sentences,)
    finished: np.ndarray  # (sentences,) bool


class Found:
    """Sentences of each image: scores (images, width) holds the best so far, best first and -inf where there is none;
    ended (images,) counts the finished ones.
    """

    def __init__(self, images: int, width: int, max_length: int, length_penalty: float) -> None:
        self.scores = np.full((images, width), -np.inf)
        self.ended = np.zeros(images, np.int64)
        self._max_length = max_length
        self._length_penalty = length_penalty
        self._parts: list[_Sentences] = []

    def score(self, log_probs: np.ndarray, length: int) -> np.ndarray:
        """Returns what sentences of a length and these log-probabilities score."""
        return normalise(log_probs, max(length, 1), self._length_penalty)

    def add(
        self, images: np.ndarray, tokens: np.ndarray, token_log_probs: np.ndarray, log_probs: np.ndarray, finished: bool
    ) -> None:
        """Takes sentences of one length: images and log_probs (sentences,), the others (sentences, length).

        The arrays are kept: they must not change afterwards.
        """
        scores = self.score(log_probs, tokens.shape[1])
        self._parts.append(_Sentences(images, tokens, token_log_probs, scores, np.full(len(images), finished)))
        if finished:
            self.ended += np.bincount(images, minlength=len(self.ended))
        count, width = self.scores.shape
        owners = np.concatenate((np.repeat(np.arange(count), width), images))
        both = np.concatenate((self.scores.ravel(), scores))
        order = np.lexsort((-both, owners))
        first = np.searchsorted(owners, np.arange(count), sorter=order)  # (images,) each has `width` or more
        self.scores = both[order[first[:, None] + np.arange(width)]]

    def best(self) -> Hypotheses:
        """Returns the best sentences of each image; of equal ones those that came first."""
        count, width = self.scores.shape
        result = Hypotheses.empty(count, width, self._max_length)
        owners, scores, finished = (
            np.concatenate([np.empty(0, array.dtype), *([getattr(part, name) for part in self._parts])])
            for name, array in (("images", self.ended), ("scores", self.scores), ("finished", result.finished))
        )
        order = np.lexsort((-scores, ~finished, owners))
        places = np.empty(len(order), np.int64)
        places[order] = np.arange(len(order)) - np.searchsorted(owners[order], owners[order])
        at = 0
        for part in self._parts:
            place = places[at : (at := at + len(part.images))]
            kept, length = np.nonzero(place < width)[0], part.tokens.shape[1]
            where = part.images[kept], place[kept]
            result.tokens[*where, :length] = part.tokens[kept]
            result.token_log_probs[*where, :length] = part.token_log_probs[kept]
            result.lengths[where], result.scores[where] = length, part.scores[kept]
            result.finished[where] = part.finished[kept]
        return result
