"""Words and their ids. Owns tokenisation; knows nothing of models, images or searches."""

import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from engine.bundle.manifest import Words

PAD, UNK, START, END = SPECIAL_WORDS = "#PAD#", "#UNK#", "#START#", "#END#"
"""The special words of models trained here."""
RULES = Words(START, END, PAD, UNK, pattern=r"\w+", lowercase=True)
"""Special words and splitting of models trained here."""


def split(text: str) -> list[str]:
    """Returns the lower-cased words (runs of letters, digits and underscores) of a sentence, as models trained here."""
    return re.findall(RULES.pattern, text.lower())


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """An ordered set of words; a word's id is its position. Which are special, and how text is split, is in `rules`.

    Raises ValueError if a word occurs twice, a special word is missing, or the rules' pattern is invalid.
    """

    words: tuple[str, ...]
    rules: Words = RULES
    ids: dict[str, int] = field(init=False, repr=False, compare=False)
    _pattern: re.Pattern[str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "ids", {word: i for i, word in enumerate(self.words)})
        if len(self.ids) != len(self.words):
            twice = [word for word, count in Counter(self.words).items() if count > 1]
            raise ValueError(f"a vocabulary contains each word once, but these occur twice: {twice[:5]}")
        rules = self.rules
        special = dict.fromkeys((rules.pad, rules.unk, rules.start, rules.end))
        if missing := [word for word in special if word not in self.ids]:
            raise ValueError(f"the vocabulary lacks the special words {missing}")
        try:
            object.__setattr__(self, "_pattern", re.compile(rules.pattern))
        except re.error as error:
            raise ValueError(f"{rules.pattern!r}, which splits text into words, is no pattern ({error})") from error

    @classmethod
    def build(cls, captions: Iterable[str], min_count: int = 5) -> "Vocabulary":
        """Collects the words that occur at least `min_count` times in the captions; ids follow sorted order."""
        counts = Counter(word for caption in captions for word in split(caption))
        return cls(tuple(sorted({word for word, n in counts.items() if n >= min_count} | set(SPECIAL_WORDS))))

    @classmethod
    def load(cls, path: Path, rules: Words = RULES) -> "Vocabulary":
        """Reads a JSON list of words. Raises OSError or ValueError."""
        words = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
            raise ValueError("a vocabulary file must contain a JSON list of words")
        return cls(tuple(words), rules)

    def save(self, path: Path) -> None:
        """Writes the words as a JSON list."""
        path.write_text(json.dumps(self.words, ensure_ascii=False, indent=0) + "\n", encoding="utf-8")

    def __len__(self) -> int:
        return len(self.words)

    @property
    def pad_id(self) -> int:
        """Id of the padding word."""
        return self.ids[self.rules.pad]

    @property
    def unk_id(self) -> int:
        """Id of every word that is not in the vocabulary."""
        return self.ids[self.rules.unk]

    @property
    def start_id(self) -> int:
        """Id that every caption begins with."""
        return self.ids[self.rules.start]

    @property
    def end_id(self) -> int:
        """Id that every finished caption ends with."""
        return self.ids[self.rules.end]

    @property
    def never(self) -> tuple[int, ...]:
        """Ids that no search may produce: those of the special words other than END."""
        return tuple(sorted({self.pad_id, self.unk_id, self.start_id} - {self.end_id}))

    def split(self, text: str) -> list[str]:
        """Returns the words of a text, known or not."""
        found = self._pattern.finditer(text.lower() if self.rules.lowercase else text)
        return [match.group() for match in found if match.group()]

    def encode(self, text: str, max_words: int | None = None) -> list[int]:
        """Returns START, the words' ids and END; a sentence cut at `max_words` gets no END.

        Raises ValueError for unknown words if no word stands for them.
        """
        words = self.split(text)
        kept = words[:max_words]
        if self.unk_id == self.end_id and (unknown := [word for word in kept if word not in self.ids]):
            raise ValueError(f"this model does not know {unknown} and has no word for unknown words")
        ids = [self.start_id, *(self.ids.get(word, self.unk_id) for word in kept)]
        return ids if len(kept) < len(words) else [*ids, self.end_id]

    def decode(self, ids: Iterable[int]) -> str:
        """Returns the words up to END joined by spaces; START and PAD are left out."""
        words: list[str] = []
        for i in ids:
            if i == self.end_id:
                break
            if i not in (self.start_id, self.pad_id):
                words.append(self.words[i])
        return " ".join(words)


def pad_matrix(sequences: Sequence[Sequence[int]], pad_id: int) -> np.ndarray:
    """Returns sequences of any lengths as rows padded with pad_id: int64 (len(sequences), longest)."""
    lengths = np.fromiter(map(len, sequences), dtype=np.int64, count=len(sequences))
    matrix = np.full((len(sequences), lengths.max(initial=0)), pad_id, dtype=np.int64)
    flat = np.fromiter((i for sequence in sequences for i in sequence), dtype=np.int64, count=int(lengths.sum()))
    matrix[np.arange(matrix.shape[1]) < lengths[:, None]] = flat
    return matrix
