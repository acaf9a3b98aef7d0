"""Which tokens may come next. Owns the constraints of a decode as masks; knows nothing of scores."""

from dataclasses import dataclass, field

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from engine.errors import OptionsError
from engine.manifest import Defaults
from engine.options import Constraints
from engine.vocabulary import Vocabulary, split


@dataclass(frozen=True, slots=True)
class Rules:
    """The constraints of one decode, in token ids."""

    vocabulary_size: int
    start_id: int
    end_id: int
    max_length: int
    min_length: int = 0
    prefix: tuple[int, ...] = ()
    forbidden: tuple[int, ...] = ()
    no_repeat_ngram_size: int = 0
    _open: np.ndarray = field(init=False, repr=False, compare=False)  # (1, vocabulary), END allowed
    _unended: np.ndarray = field(init=False, repr=False, compare=False)  # (1, vocabulary), END forbidden

    def __post_init__(self) -> None:
        allowed = np.zeros((1, self.vocabulary_size), np.float32)
        allowed[:, list(self.forbidden)] = -np.inf
        unended = allowed.copy()
        unended[:, self.end_id] = -np.inf
        object.__setattr__(self, "_open", allowed)
        object.__setattr__(self, "_unended", unended)

    @classmethod
    def of(cls, constraints: Constraints, vocabulary: Vocabulary, defaults: Defaults) -> "Rules":
        """Translates options into token ids. Raises OptionsError naming the option that does not fit the model."""
        max_length = constraints.max_length or defaults.max_length
        words = split(constraints.prefix)
        if unknown := [word for word in words if word not in vocabulary.ids]:
            raise OptionsError(f"prefix={constraints.prefix!r}: the model does not know {unknown}; choose other words")
        if len(words) >= max_length:
            raise OptionsError(f"prefix={constraints.prefix!r} leaves no room within max_length={max_length}")
        if constraints.min_length >= max_length:
            raise OptionsError(f"min_length={constraints.min_length} must be below max_length={max_length}")
        repeats = constraints.no_repeat_ngram_size
        suppressed = {
            vocabulary.ids[word] for text in constraints.suppress for word in split(text) if word in vocabulary.ids
        }
        return cls(
            vocabulary_size=len(vocabulary),
            start_id=vocabulary.start_id,
            end_id=vocabulary.end_id,
            max_length=max_length,
            min_length=constraints.min_length,
            prefix=tuple(vocabulary.ids[word] for word in words),
            forbidden=(*sorted(suppressed), vocabulary.pad_id, vocabulary.unk_id, vocabulary.start_id),
            no_repeat_ngram_size=defaults.no_repeat_ngram_size if repeats is None else repeats,
        )

    def bias(self, position: int, tokens: np.ndarray, rows: np.ndarray | slice) -> np.ndarray:
        """Returns 0 for tokens that may follow and -inf for the others: float32 (1 or rows, vocabulary).

        tokens[rows, :position], int64, are the words so far, START left out. The same array, unchanged, is returned
        again where the same tokens may follow.
        """
        if position < len(self.prefix):
            forced = np.full((1, self.vocabulary_size), -np.inf, np.float32)
            forced[:, self.prefix[position]] = 0
            return forced
        shared = self._unended if position < self.min_length else self._open
        size = self.no_repeat_ngram_size
        if not size or position < size:
            return shared
        return self._without_repeats(shared, tokens[rows, :position])

    def _without_repeats(self, shared: np.ndarray, tokens: np.ndarray) -> np.ndarray:
        size = self.no_repeat_ngram_size
        bias = np.repeat(shared, len(tokens), axis=0)  # (rows, vocabulary)
        ngrams = sliding_window_view(tokens, size, axis=1)  # (rows, windows, size)
        context = tokens[:, None, tokens.shape[1] - size + 1 :]  # (rows, 1, size - 1)
        rows, windows = np.nonzero((ngrams[:, :, :-1] == context).all(axis=2))
        bias[rows, ngrams[rows, windows, -1]] = -np.inf
        return bias
