"""Which tokens may come next. Owns the constraints of a decode, in token ids; knows nothing of scores."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np

from engine.decoding.allowed import Allowed
from engine.errors import OptionsError
from engine.manifest import Defaults
from engine.options import Constraints
from engine.vocabulary import Vocabulary, split

JOINT = "and"  # people write no phrase on both its sides; where a vocabulary lacks it, there is no such rule


@dataclass(frozen=True, slots=True)
class Rules:
    """The constraints of one decode, in token ids.

    No sentence ends in one of bad_endings: END may not follow them, and they may not take the last place of max_length.
    No no_repeat_ngram_size words stand twice in the same order, and no fewer twice in a row, nor around the word joint
    ("white and white").
    """

    vocabulary_size: int
    start_id: int
    end_id: int
    max_length: int
    min_length: int = 0
    prefix: tuple[int, ...] = ()
    forbidden: tuple[int, ...] = ()
    no_repeat_ngram_size: int = 0
    bad_endings: tuple[int, ...] = ()
    joint: int = -1
    _open: np.ndarray = field(init=False, repr=False, compare=False)  # (1, vocabulary), END allowed
    _unended: np.ndarray = field(init=False, repr=False, compare=False)  # (1, vocabulary), END forbidden
    _last: np.ndarray = field(init=False, repr=False, compare=False)  # (1, vocabulary), bad endings forbidden
    _after: np.ndarray = field(init=False, repr=False, compare=False)  # (vocabulary,) END where it may not follow
    _bans: bool = field(init=False, repr=False, compare=False)  # whether what was written bans tokens

    def __post_init__(self) -> None:
        size, forbidden = self.vocabulary_size, self.forbidden
        object.__setattr__(self, "_open", _forbid(size, forbidden))
        object.__setattr__(self, "_unended", _forbid(size, (*forbidden, self.end_id)))
        object.__setattr__(self, "_last", _forbid(size, (*forbidden, *self.bad_endings)))
        object.__setattr__(self, "_after", _mark(size, self.bad_endings, self.end_id, self.start_id))
        object.__setattr__(self, "_bans", bool(self.bad_endings or self.no_repeat_ngram_size))

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
        repeats, endings = constraints.no_repeat_ngram_size, constraints.bad_endings
        repeats = defaults.no_repeat_ngram_size if repeats is None else repeats
        suppressed, bad_endings = (
            {vocabulary.ids[word] for text in texts for word in split(text) if word in vocabulary.ids}
            for texts in (constraints.suppress, defaults.bad_endings if endings is None else endings)
        )
        return cls(
            vocabulary_size=len(vocabulary),
            start_id=vocabulary.start_id,
            end_id=vocabulary.end_id,
            max_length=max_length,
            min_length=constraints.min_length,
            prefix=tuple(vocabulary.ids[word] for word in words),
            forbidden=(*sorted(suppressed), vocabulary.pad_id, vocabulary.unk_id, vocabulary.start_id),
            no_repeat_ngram_size=repeats,
            bad_endings=tuple(sorted(bad_endings)),
            joint=vocabulary.ids.get(JOINT, -1),
        )

    def allowed(self, written: np.ndarray, positions: np.ndarray) -> Allowed:
        """Returns what may follow some rows: written, int64 (rows, longest), ends with the words so far of each.

        Before its first word a row holds START; positions, int64 (rows,), says how many words it has. The bias is the
        same array, unchanged, wherever the same tokens may follow all rows.
        """
        longest = written.shape[1]
        bias = self._bias(positions, longest)
        if not longest or not self._bans:
            return Allowed(bias)
        banned = [self._after[written[:, -1]]] if self.bad_endings else []
        banned += self._repeats(written)
        if self.prefix and (forced := positions < len(self.prefix)).any():  # which stands even where it breaks a rule
            banned = [np.where(forced, self.start_id, tokens) for tokens in banned]
        return Allowed(bias, np.array(banned) if banned else None)

    def _bias(self, positions: np.ndarray, longest: int) -> np.ndarray:
        """Returns what any row may take at its position, whatever its words: float32 (1 or rows, vocabulary)."""
        begun, last = max(len(self.prefix), self.min_length), self.max_length - 1
        if not begun and (self._last is self._open or longest < last):
            return self._open
        present = set(positions.tolist())
        biases = {position: self._bias_at(position) for position in present}
        if len({id(bias) for bias in biases.values()}) == 1:
            return biases[present.pop()]
        return np.concatenate([biases[position] for position in positions.tolist()])

    def _bias_at(self, position: int) -> np.ndarray:
        if position < len(self.prefix):
            forced = np.full((1, self.vocabulary_size), -np.inf, np.float32)
            forced[:, self.prefix[position]] = 0
            return forced
        if position < self.min_length:
            return self._unended
        return self._last if position == self.max_length - 1 else self._open

    def _repeats(self, tokens: np.ndarray) -> Iterator[np.ndarray]:
        """Yields tokens that would repeat a phrase, (rows,) each; where a row has none, START, which never follows."""
        size, words = self.no_repeat_ngram_size, tokens.shape[1]
        if size == 1:
            yield from tokens.T
        if size < 2:
            return
        last, none = tokens[:, -1], np.int64(self.start_id)
        yield last
        if words > 1 and np.count_nonzero(joined := last == self.joint):
            yield np.where(joined, tokens[:, -2], none)
        equal = tokens[:, :-2] == tokens[:, -1:]  # (rows, words - 2)
        if not np.count_nonzero(equal):
            return  # the last word stood nowhere before, nor is any longer phrase repeated
        stood = equal.any(axis=1) & (last != none)  # (rows,) the last word did before
        for length, gap in itertools.product(range(2, min(size, words // 2 + 2)), (0, 1)):
            lag = length + gap
            if words < lag + length - 1:
                continue
            fits = (tokens[:, words - length + 1 :] == tokens[:, words - length + 1 - lag : words - lag]).all(
                axis=1
            ) & stood
            if gap:
                fits &= tokens[:, -length] == self.joint
            if fits.any():
                yield np.where(fits, tokens[:, -lag], none)
        windows, rows = words - size + 1, np.arange(len(tokens))
        if windows < 1:
            return
        found = tokens[:, :windows] == tokens[:, windows, None]  # (rows, windows) where the last size - 1 words stood
        found &= stood[:, None]
        for i in range(1, size - 1):
            found &= tokens[:, i : i + windows] == tokens[:, windows + i, None]
        while np.count_nonzero(found):
            place = found.argmax(axis=1)  # (rows,) the first
            yield np.where(found[rows, place], tokens[rows, place + size - 1], none)
            found[rows, place] = False


@lru_cache(maxsize=256)
def _forbid(vocabulary_size: int, forbidden: tuple[int, ...]) -> np.ndarray:
    """Returns the bias that forbids these tokens, float32 (1, vocabulary): one array for all who ask for the same."""
    bias = np.zeros((1, vocabulary_size), np.float32)
    bias[:, list(forbidden)] = -np.inf
    return bias


@lru_cache(maxsize=256)
def _mark(vocabulary_size: int, tokens: tuple[int, ...], mark: int, other: int) -> np.ndarray:
    """Returns what stands for each token, int64 (vocabulary,): mark for these, other for the rest."""
    marks = np.full(vocabulary_size, other)
    marks[list(tokens)] = mark
    return marks
