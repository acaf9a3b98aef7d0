"""What a search needs of a model. Knows no runtime: the engine's decoder and the tests' tables both fit."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np


class StepModel(Protocol):
    """A decoder in the middle of one batch: it keeps the state of its last step's rows (at first: one an image).

    Each method feeds one token to each row. A row continues the state of row parent_rows[row] of the step before, so
    that one argument expands, reorders and drops rows. token_ids and parent_rows are int64 (rows,); bias, float32 (1 or
    rows, vocabulary), is 0 where a token is allowed and -inf where not. What is returned is valid until the next step,
    and no longer than the model itself: another may take over its memory. `best` and
    `draw` are here for models that have nothing better.
    """

    images: int
    """Number of images that came with the model."""

    def admit(self, features: Sequence[np.ndarray]) -> np.ndarray:
        """Takes more images in before the next step: arrays of float32 (any, feature_size), one behind the other.

        Returns the rows that hold their states, int64 (images,): parent_rows of the next step may name them, which is
        the only step that still finds them there.
        """
        raise TypeError(f"{type(self).__name__} takes no more images")

    def step(
        self, token_ids: np.ndarray, parent_rows: np.ndarray, bias: np.ndarray, k: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Returns the k best next tokens.

        ids int64 and log_probs float32 are both (rows, k) and best first; tokens that bias forbids have log_prob -inf.
        """
        ...

    def best(self, token_ids: np.ndarray, parent_rows: np.ndarray, bias: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns the best next token, where nobody asks how likely it is.

        ids int64 (rows,), and float32 (rows,) that are -inf where bias forbids all tokens and any number elsewhere.
        """
        ids, log_probs = self.step(token_ids, parent_rows, bias, 1)
        return ids[:, 0], log_probs[:, 0]

    def draw(
        self,
        token_ids: np.ndarray,
        parent_rows: np.ndarray,
        bias: np.ndarray,
        temperatures: np.ndarray,
        uniforms: np.ndarray,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Returns a next token drawn from p ** (1 / temperature), p being the distribution over the allowed tokens.

        temperatures are above 0, (rows,). uniforms, float32 (rows,) in (0, 1], say where: a row takes the first token,
        in order of id, with which the cumulative distribution reaches its number. Returns ids int64 and
        log_probs float32, both (rows,), at temperature 1; log_prob is -inf where bias forbids all tokens.
        """
        words = bias.shape[1]
        ids, log_probs = self.step(token_ids, parent_rows, bias, words)  # (rows, words)
        by_id = np.empty((len(ids), words), np.float32)
        np.put_along_axis(by_id, ids, log_probs, axis=1)
        best = np.maximum(log_probs[:, :1], np.finfo(np.float32).min)
        with np.errstate(over="ignore"):  # a tiny temperature leaves all but the best no probability, as it should
            cumulative = np.exp((by_id - best) / temperatures[:, None]).cumsum(axis=1)
        chosen = (cumulative < uniforms[:, None] * cumulative[:, -1:]).sum(axis=1)
        return chosen, by_id[np.arange(len(ids)), chosen]
