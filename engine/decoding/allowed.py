"""What may follow each row of a step, and how a model is asked for the best of it. Knows no rule that says so."""

from dataclasses import dataclass

import numpy as np

from engine.decoding.model import StepModel

STRIDE = 4  # a device keeps a graph for each number of candidates: few numbers, few graphs


@dataclass(frozen=True, slots=True)
class Allowed:
    """bias, float32 (1, vocabulary), is 0 for tokens that may follow and -inf for the others, in all rows alike.

    banned, int64 (any, rows), are tokens that a row may not take either; None where there are none.
    """

    bias: np.ndarray
    banned: np.ndarray | None = None

    def best(
        self, model: StepModel, token_ids: np.ndarray, parent_rows: np.ndarray, k: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Feeds a token to each row and returns the k best that follow, perhaps with others: (rows, k or more).

        Best first, ids int64 and log_probs float32; a token that may not follow has -inf, wherever it stands. As few
        are banned, to ask for as many more costs next to nothing, and a mask for each row does not.
        """
        most = self.bias.shape[1]
        if self.banned is None:
            return model.step(token_ids, parent_rows, self.bias, min(k, most))
        wanted = -(-(k + len(self.banned)) // STRIDE) * STRIDE
        ids, log_probs = model.step(token_ids, parent_rows, self.bias, min(wanted, most))
        struck = (ids == self.banned[:, :, None]).any(axis=0)  # (rows, candidates)
        return ids, np.where(struck, np.float32(-np.inf), log_probs)

    def mask(self) -> np.ndarray:
        """Returns the same as a bias for StepModel: float32 (1 or rows, vocabulary)."""
        if self.banned is None:
            return self.bias
        mask = np.repeat(self.bias, self.banned.shape[1], axis=0)
        np.put_along_axis(mask, self.banned.T, -np.inf, axis=1)
        return mask
