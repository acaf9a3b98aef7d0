"""The sentences that a search has found, as arrays. Owns their ranking; knows nothing of how they were found."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Hypotheses:
    """Up to `width` sentences for each image, best first: finished before unfinished, then by score.

    tokens int64 and token_log_probs float32 are (images, width, max_length), valid up to lengths (images, width);
    scores are float64 (images, width), -inf where there is no sentence, NaN where none was asked for; finished is bool
    (images, width).
    """

    tokens: np.ndarray
    token_log_probs: np.ndarray
    lengths: np.ndarray
    scores: np.ndarray
    finished: np.ndarray

    @classmethod
    def empty(cls, images: int, width: int, max_length: int) -> "Hypotheses":
        """Makes room for `width` sentences an image and holds none."""
        return cls(
            tokens=np.zeros((images, width, max_length), np.int64),
            token_log_probs=np.zeros((images, width, max_length), np.float32),
            lengths=np.zeros((images, width), np.int64),
            scores=np.full((images, width), -np.inf),
            finished=np.zeros((images, width), bool),
        )

    def ranked(self) -> "Hypotheses":
        """Returns the same sentences, best first."""
        order = ranking(self.scores, self.finished)
        rows = np.arange(len(order))[:, None]
        return Hypotheses(*(array[rows, order] for array in self.arrays()))

    def arrays(self) -> tuple[np.ndarray, ...]:
        """Returns the arrays in the order of the fields."""
        return self.tokens, self.token_log_probs, self.lengths, self.scores, self.finished


def ranking(scores: np.ndarray, finished: np.ndarray) -> np.ndarray:
    """Returns the positions of each row's sentences, finished first and then by falling score; ties keep order."""
    return np.lexsort((-scores, ~finished), axis=1)


def normalise(log_probs: np.ndarray, lengths: np.ndarray | int, length_penalty: float) -> np.ndarray:
    """Returns scores: log-probabilities over length ** length_penalty."""
    return np.asarray(log_probs / np.power(lengths, length_penalty))
