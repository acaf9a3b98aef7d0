"""Which tokens may come next. Owns the constraints of a decode, in token ids; knows nothing of scores."""

from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np

from engine.bundle.manifest import Defaults
from engine.bundle.vocabulary import Vocabulary
from engine.errors import OptionsError
from engine.options import Constraints

CANDIDATE_STRIDE = 4  # a device captures a graph for each number of candidates, so keep these few
JOINT = "and"  # people do not repeat a phrase around it; no rule if the vocabulary lacks it


@dataclass(frozen=True, slots=True)
class AllowedTokens:
    """bias, float32 (1 or rows, vocabulary), is 0 for allowed tokens and -inf for the others.

    banned, int64 (any, rows), are further tokens that each row may not take; None if there are none.
    """

    bias: np.ndarray
    banned: np.ndarray | None = None

    def candidates(self, k: int) -> int:
        """Returns how many of the best tokens under bias are needed to include the k best allowed ones.

        Few tokens are banned, so asking for a few more candidates costs almost nothing; a mask per row would.
        """
        wanted = k if self.banned is None else -(-(k + len(self.banned)) // CANDIDATE_STRIDE) * CANDIDATE_STRIDE
        return min(wanted, int(self.bias.shape[1]))

    def mask_banned(self, ids: np.ndarray, log_probs: np.ndarray) -> np.ndarray:
        """Returns log_probs (rows, candidates) with -inf for banned tokens."""
        if self.banned is None:
            return log_probs
        masked = (ids == self.banned[:, :, None]).any(axis=0)  # (rows, candidates)
        return np.where(masked, np.float32(-np.inf), log_probs)

    def best(self, ids: np.ndarray, log_probs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns id and log_prob, both (rows,), of the best candidate that is not banned; -inf if there is none.

        Ids and log_probs are (rows, candidates), best first.
        """
        if self.banned is None or not np.count_nonzero(ids[:, 0] == self.banned):
            return ids[:, 0], log_probs[:, 0]
        masked = self.mask_banned(ids, log_probs)
        places = np.arange(len(ids)), masked.argmax(axis=1)
        return ids[places], masked[places]

    def mask(self) -> np.ndarray:
        """Returns the same as a bias for StepModel: float32 (1 or rows, vocabulary)."""
        if self.banned is None:
            return self.bias
        rows = self.banned.shape[1]
        mask = np.repeat(self.bias, rows, axis=0) if len(self.bias) == 1 else self.bias.copy()
        np.put_along_axis(mask, self.banned.T, -np.inf, axis=1)
        return mask


@dataclass(frozen=True, slots=True)
class TokenConstraints:
    """The constraints of one decode, in token ids.

    No sentence ends in one of bad_endings: END may not follow them, and they may not be the last word at max_length. No
    n-gram of no_repeat_ngram_size words occurs twice, and no shorter one twice in a row or around the word `joint`
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
    _bans: np.ndarray = field(init=False, repr=False, compare=False)  # (any, vocabulary) what may not follow a token

    def __post_init__(self) -> None:
        size, forbidden = self.vocabulary_size, self.forbidden
        object.__setattr__(self, "_open", _forbid(size, forbidden))
        object.__setattr__(self, "_unended", _forbid(size, (*forbidden, self.end_id)))
        object.__setattr__(self, "_last", _forbid(size, (*forbidden, *self.bad_endings)))
        bans = _bans(size, self.bad_endings, self.end_id, self.start_id, self.no_repeat_ngram_size > 1)
        object.__setattr__(self, "_bans", bans)

    @classmethod
    def of(cls, constraints: Constraints, vocabulary: Vocabulary, defaults: Defaults) -> "TokenConstraints":
        """Translates options into token ids. Raises OptionsError naming the option that does not fit the model."""
        max_length = constraints.max_length or defaults.max_length
        words = vocabulary.split(constraints.prefix)
        if unknown := [word for word in words if word not in vocabulary.ids]:
            reason = f"the model does not know {unknown}; choose other words"
            raise OptionsError(reason, name="prefix", value=constraints.prefix)
        if len(words) >= max_length:
            reason = f"prefix must be shorter, to leave room for a word within max_length={max_length}"
            raise OptionsError(reason, name="prefix", value=constraints.prefix)
        if constraints.min_length >= max_length:
            reason = f"min_length must be below max_length={max_length}"
            raise OptionsError(reason, name="min_length", value=constraints.min_length)
        repeats, endings = constraints.no_repeat_ngram_size, constraints.bad_endings
        repeats = defaults.no_repeat_ngram_size if repeats is None else repeats
        suppressed, bad_endings = (
            {vocabulary.ids[word] for text in texts for word in vocabulary.split(text) if word in vocabulary.ids}
            for texts in (constraints.suppress, defaults.bad_endings if endings is None else endings)
        )
        return cls(
            vocabulary_size=len(vocabulary),
            start_id=vocabulary.start_id,
            end_id=vocabulary.end_id,
            max_length=max_length,
            min_length=constraints.min_length,
            prefix=tuple(vocabulary.ids[word] for word in words),
            forbidden=(*sorted(suppressed), *vocabulary.never),
            no_repeat_ngram_size=repeats,
            bad_endings=tuple(sorted(bad_endings)),
            joint=vocabulary.ids.get(JOINT, -1),
        )

    def allowed(self, written: np.ndarray, positions: np.ndarray | None = None) -> AllowedTokens:
        """Returns what may follow some rows; written, int64 (rows, longest), ends with each row's words so far.

        A row is START up to its first word. positions, int64 (rows,), is how many words each has; None means that all
        are as long as the longest. The bias is the same array object whenever the same tokens are allowed in all rows.
        """
        longest = written.shape[1]
        bias = self._bias(positions, longest)
        if not longest or not (len(self._bans) or self.no_repeat_ngram_size):
            return AllowedTokens(bias)
        banned = self._bans.take(written[:, -1], axis=1)  # (any, rows)
        if self.no_repeat_ngram_size and len(repeats := self._repeats(written)):
            banned = np.concatenate((banned, repeats))
        if self.prefix:  # the prefix is kept even if it breaks a rule
            forced = (np.full(len(written), longest) if positions is None else positions) < len(self.prefix)
            banned[:, forced] = self.start_id
        return AllowedTokens(bias, banned if len(banned) else None)

    def _bias(self, positions: np.ndarray | None, longest: int) -> np.ndarray:
        """Returns the bias that depends on a row's position but not on its words: float32 (1 or rows, vocabulary)."""
        begun, last = max(len(self.prefix), self.min_length), self.max_length - 1
        if not begun and (self._last is self._open or longest < last):
            return self._open
        if positions is None:
            return self._bias_at(longest)
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

    def _repeats(self, tokens: np.ndarray) -> np.ndarray:
        """Returns tokens that would repeat a phrase, int64 (any, rows), padded with START, which is never allowed.

        _bans handles a word that would follow itself.
        """
        if self.no_repeat_ngram_size == 1:
            return tokens.T
        last = tokens[:, -1].tolist()
        # a phrase of two or more words can only repeat if its last word occurred before
        rows = set(np.nonzero(tokens[:, :-2] == tokens[:, -1:])[0].tolist())
        if self.joint in last:
            rows.update(row for row, word in enumerate(last) if word == self.joint)
        if not rows:
            return tokens.T[:0]
        found = {row: self._repeated(tokens[row].tolist()) for row in rows if last[row] != self.start_id}
        repeats = np.full((max(map(len, found.values()), default=0), len(tokens)), self.start_id)
        for row, words in found.items():
            repeats[: len(words), row] = words
        return repeats

    def _repeated(self, words: list[int]) -> list[int]:
        """Returns the words that would repeat a phrase if they came next."""
        size, last, end = self.no_repeat_ngram_size, words[-1], len(words)
        found = words[-2:-1] if last == self.joint else []
        for length in range(2, min(size, (end + 3) // 2)):  # adjacent phrases, or around the joint
            begin = end - length + 1  # of the second phrase, as far as it is written
            for lag in (length, length + 1):
                fits = begin >= lag and (lag == length or words[begin - 1] == self.joint)
                if fits and words[begin:] == words[begin - lag : end - lag]:
                    found.append(words[-lag])
        before = words[end - size + 1 : -1]
        for i in range(size - 2, end - 1):  # phrases of `size` words anywhere
            if words[i] == last and words[i - size + 2 : i] == before:
                found.append(words[i + 1])
        return found


@lru_cache(maxsize=256)
def _forbid(vocabulary_size: int, forbidden: tuple[int, ...]) -> np.ndarray:
    """Returns the bias that forbids these tokens, float32 (1, vocabulary), one shared array per set of tokens."""
    bias = np.zeros((1, vocabulary_size), np.float32)
    bias[:, list(forbidden)] = -np.inf
    return bias


@lru_cache(maxsize=256)
def _bans(vocabulary_size: int, bad_endings: tuple[int, ...], end_id: int, none: int, itself: bool) -> np.ndarray:
    """Returns which tokens (END, itself) may not follow each token, int64 (any, vocabulary)."""
    after = np.full(vocabulary_size, none)
    after[list(bad_endings)] = end_id
    bans = [*([after] if bad_endings else []), *([np.arange(vocabulary_size)] if itself else [])]
    return np.array(bans, np.int64).reshape(-1, vocabulary_size)
