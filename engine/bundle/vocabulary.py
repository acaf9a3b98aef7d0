"""Words and their ids. Owns tokenisation; knows nothing of models, images or searches."""

import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

PAD, UNK, START, END = SPECIAL_WORDS = "#PAD#", "#UNK#", "#START#", "#END#"


def split(text: str) -> list[str]:
    """Returns the lower-cased words (runs of letters, digits and underscores) of a sentence."""
    return re.findall(r"\w+", text.lower())


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """An ordered set of words; a word's id is its position. The four special words are always among them.

    Raises ValueError if a word occurs twice or a special word is missing.
    """

    words: tuple[str, ...]
    ids: dict[str, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "ids", {word: i for i, word in enumerate(self.words)})
        if len(self.ids) != len(self.words):
            twice = [word for word, count in Counter(self.words).items() if count > 1]
            raise ValueError(f"a vocabulary contains each word once, but these occur twice: {twice[:5]}")
        if missing := [word for word in SPECIAL_WORDS if word not in self.ids]:
            raise ValueError(f"the vocabulary lacks the special words {missing}")

    @classmethod
    def build(cls, captions: Iterable[str], min_count: int = 5) -> "Vocabulary":
        """Collects the words that occur at least `min_count` times in the captions; ids follow sorted order."""
        counts = Counter(word for caption in captions for word in split(caption))
        return cls(tuple(sorted({word for word, n in counts.items() if n >= min_count} | set(SPECIAL_WORDS))))

    @classmethod
    def load(cls, path: Path) -> "Vocabulary":
        """Reads a JSON list of words. Raises OSError or ValueError."""
        words = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
            raise ValueError("a vocabulary file must contain a JSON list of words")
        return cls(tuple(words))

    def save(self, path: Path) -> None:
        """Writes the words as a JSON list."""
        path.write_text(json.dumps(self.words, ensure_ascii=False, indent=0) + "\n", encoding="utf-8")

    def __len__(self) -> int:
        return len(self.words)

    @property
    def pad_id(self) -> int:
        """Id of the padding word."""
        return self.ids[PAD]

    @property
    def unk_id(self) -> int:
        """Id of every word that is not in the vocabulary."""
        return self.ids[UNK]

    @property
    def start_id(self) -> int:
        """Id that every caption begins with."""
        return self.ids[START]

    @property
    def end_id(self) -> int:
        """Id that every finished caption ends with."""
        return self.ids[END]

    def encode(self, text: str, max_words: int | None = None) -> list[int]:
        """Returns START, the words' ids and END; a sentence cut at `max_words` gets no END."""
        words = split(text)
        kept = words[:max_words]
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
