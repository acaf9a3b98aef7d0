"""Hypotheses of a search: live ones in arrays, ended ones as objects. Searches nothing itself."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np


@dataclass(frozen=True, slots=True)
class TokenHypothesis:
    """A hypothesis that has ended: tokens int64 and token_log_probs float32, both (length,), END included.

    score is log-probability / length ** length_penalty.
    """

    tokens: np.ndarray
    token_log_probs: np.ndarray
    score: float
    finished: bool


def ranked(hypotheses: Iterable[TokenHypothesis], most: int) -> list[TokenHypothesis]:
    """Returns the best, finished before unfinished, then by falling score; ties keep their order."""
    return sorted(hypotheses, key=lambda one: (not one.finished, -one.score))[:most]


@lru_cache(maxsize=256)
def divisors(max_length: int, length_penalty: float) -> tuple[float, ...]:
    """Returns, for each length from 0, the number that a log-probability is divided by to give the score."""
    return tuple(float(np.power(max(length, 1), length_penalty)) for length in range(max_length + 1))


def joined(array: np.ndarray, more: np.ndarray) -> np.ndarray:
    """Returns the concatenation; most searches are still empty when rows join."""
    return np.concatenate((array, more)) if len(array) else more


class LiveHypotheses:
    """The words so far of a search's rows. Rows may have started at different steps.

    tokens int64 and token_log_probs float32 are (rows, length). A row uses the columns from its begin (rows,) up to
    `column`, the next one to write. The columns before its begin are START, which no sentence contains.
    """

    def __init__(self, length: int, start_id: int) -> None:
        self._start_id = start_id
        self.tokens = np.empty((0, length), np.int64)
        self.token_log_probs = np.empty((0, length), np.float32)
        self.begin = np.empty(0, np.int64)
        self.column = 0
        self._first = 0  # the smallest begin
        self._even = True  # whether all begins are equal: then the smallest cannot change when rows leave

    @property
    def longest(self) -> int:
        """Number of words of the longest row."""
        return self.column - self._first

    @property
    def positions(self) -> np.ndarray | None:
        """Number of words of each row, int64 (rows,); None if all are as long as the longest."""
        return None if self._even else self.column - self.begin

    def add(self, rows: int) -> None:
        """Adds rows that start at this step."""
        if not len(self.begin):
            self.column, self._first, self._even = 0, 0, True
        elif self.column == self.tokens.shape[1]:
            self._shift()
        self._even = self._even and self.column == self._first
        length = self.tokens.shape[1]
        self.tokens = joined(self.tokens, np.full((rows, length), self._start_id))
        self.token_log_probs = joined(self.token_log_probs, np.zeros((rows, length), np.float32))
        self.begin = joined(self.begin, np.full(rows, self.column))

    def written(self) -> np.ndarray:
        """Returns the words of all rows, int64 (rows, longest), right-aligned."""
        return self.tokens[:, self._first : self.column]

    def take(self, rows: np.ndarray) -> None:
        """Selects rows in this order; a row may be repeated or left out."""
        self.tokens = self.tokens.take(rows, axis=0)
        self.token_log_probs = self.token_log_probs.take(rows, axis=0)
        self.begin = self.begin.take(rows)
        if not self._even and len(rows):
            self._first = int(self.begin.min())

    def append(self, ids: np.ndarray, log_probs: np.ndarray) -> None:
        """Appends a word to each row."""
        if not len(self.begin):
            return
        if self.column == self.tokens.shape[1]:
            self._shift()
        self.tokens[:, self.column] = ids
        self.token_log_probs[:, self.column] = log_probs
        self.column += 1

    def tokens_of(self, row: int) -> np.ndarray:
        """Returns the tokens of a row, int64 (length,)."""
        return self.tokens[row, self.begin[row] : self.column]

    def tokens_and_log_probs(self, row: int, *last: tuple[int, float]) -> tuple[np.ndarray, np.ndarray]:
        """Returns tokens and token_log_probs of a row; last: id and log_prob of one more word, if given."""
        tokens = self.tokens_of(row)
        log_probs = self.token_log_probs[row, self.begin[row] : self.column]
        more, gained = np.array([id_ for id_, _ in last], np.int64), np.array([p for _, p in last], np.float32)
        return np.concatenate((tokens, more)), np.concatenate((log_probs, gained))

    def _shift(self) -> None:
        """Makes room at the end: no row uses all columns, or it would have ended."""
        first = self._first
        assert first, "a row of the greatest length has left already"
        self.column, self._first = self.column - first, 0
        self.begin = self.begin - first
        for array in (self.tokens, self.token_log_probs):
            array[:, : self.column] = array[:, first:].copy()
