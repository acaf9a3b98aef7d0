"""What a search needs from a model. Knows no runtime: the engine's decoder and the tests' tables both implement it."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np


class StepModel(ABC):
    """A decoder working on one batch. It keeps the state of its last step's rows (at first one per image).

    Each method feeds one token to each row. A row continues the state of row parent_rows[row] of the previous step, so
    this one argument expands, reorders and drops rows. token_ids and parent_rows are int64 (rows,); bias, float32 (1 or
    rows, vocabulary), is 0 for allowed tokens and -inf for others. Results are valid until the next step and only while
    the model exists, since another model may reuse its memory. `draw` has a default for models without a faster one.
    """

    images: int
    """Number of images the model started with."""

    def admit(self, features: Sequence[np.ndarray]) -> np.ndarray:
        """Admits more images before the next step: features as arrays of float32 (any, *feature_shape), in order.

        Returns the rows with their states, int64 (images,), for parent_rows of the next step; after that step these row
        numbers are no longer valid.
        """
        raise TypeError(f"{type(self).__name__} cannot admit images")

    @abstractmethod
    def step(
        self, token_ids: np.ndarray, parent_rows: np.ndarray, bias: np.ndarray, k: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Returns the k best next tokens.

        ids int64 and log_probs float32 are both (rows, k) and best first; tokens that bias forbids have log_prob -inf.
        """

    def draw(
        self,
        token_ids: np.ndarray,
        parent_rows: np.ndarray,
        bias: np.ndarray,
        temperatures: np.ndarray,
        uniforms: np.ndarray,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Returns a next token drawn from p ** (1 / temperature), p being the distribution over the allowed tokens.

        temperatures are above 0, (rows,). uniforms are float32 (rows,) in (0, 1]: a row takes the first token, in order
        of id, at which the cumulative distribution reaches its number. Returns ids int64 and log_probs float32, both
        (rows,), at temperature 1; log_prob is -inf if bias forbids all tokens.
        """
        words = bias.shape[1]
        ids, log_probs = self.step(token_ids, parent_rows, bias, words)  # (rows, words)
        by_id = np.empty((len(ids), words), np.float32)
        np.put_along_axis(by_id, ids, log_probs, axis=1)
        best = np.maximum(log_probs[:, :1], np.finfo(np.float32).min)
        with np.errstate(over="ignore"):  # at a tiny temperature all but the best rightly get probability 0
            cumulative = np.exp((by_id - best) / temperatures[:, None]).cumsum(axis=1)
        chosen = (cumulative < uniforms[:, None] * cumulative[:, -1:]).sum(axis=1)
        return chosen, by_id[np.arange(len(ids)), chosen]
