"""What a search needs of a model. Knows no runtime: the engine's decoder and the tests' tables both fit."""

from typing import Protocol

import numpy as np


class StepModel(Protocol):
    """A decoder in the middle of one batch: it keeps the state of its last step's rows (at first: one an image)."""

    @property
    def images(self) -> int:
        """Number of images in the batch."""

    def step(
        self, token_ids: np.ndarray, parent_rows: np.ndarray, bias: np.ndarray, k: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Feeds one token to each row and returns the k best next tokens.

        A row continues the state of row parent_rows[row] of the step before, so that one argument expands,
        reorders and drops rows. token_ids and parent_rows are int64 (rows,); bias, float32 (1 or rows, vocabulary),
        is 0 where a token is allowed and -inf where not. Returns ids int64 and log_probs float32, both (rows, k)
        and best first; tokens that bias forbids have log_prob -inf. The arrays are valid until the next step.
        """
