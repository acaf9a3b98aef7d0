"""What may follow each row of a step. Knows no rule that says so."""

from dataclasses import dataclass

import numpy as np

STRIDE = 4  # a device keeps a graph for each number of candidates: few numbers, few graphs


@dataclass(frozen=True, slots=True)
class Allowed:
    """bias, float32 (1 or rows, vocabulary), is 0 for tokens that may follow and -inf for the others.

    banned, int64 (any, rows), are tokens that a row may not take either; None where there are none.
    """

    bias: np.ndarray
    banned: np.ndarray | None = None

    def candidates(self, k: int) -> int:
        """Returns how many of the best tokens under bias hold the k best that may follow.

        As few are banned, to ask for as many more costs next to nothing, and a mask for each row does not.
        """
        wanted = k if self.banned is None else -(-(k + len(self.banned)) // STRIDE) * STRIDE
        return min(wanted, int(self.bias.shape[1]))

    def strike(self, ids: np.ndarray, log_probs: np.ndarray) -> np.ndarray:
        """Returns log_probs (rows, candidates) with -inf where a token is banned."""
        if self.banned is None:
            return log_probs
        struck = (ids == self.banned[:, :, None]).any(axis=0)  # (rows, candidates)
        return np.where(struck, np.float32(-np.inf), log_probs)

    def best(self, ids: np.ndarray, log_probs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns id and log_prob, both (rows,), of the best candidate that is not banned; -inf where there is none.

        Ids and log_probs are (rows, candidates), best first.
        """
        if self.banned is None or not np.count_nonzero(ids[:, 0] == self.banned):
            return ids[:, 0], log_probs[:, 0]
        struck = self.strike(ids, log_probs)
        places = np.arange(len(ids)), struck.argmax(axis=1)
        return ids[places], struck[places]

    def mask(self) -> np.ndarray:
        """Returns the same as a bias for StepModel: float32 (1 or rows, vocabulary)."""
        if self.banned is None:
            return self.bias
        rows = self.banned.shape[1]
        mask = np.repeat(self.bias, rows, axis=0) if len(self.bias) == 1 else self.bias.copy()
        np.put_along_axis(mask, self.banned.T, -np.inf, axis=1)
        return mask
