"""Pairs of sentences that describe the same photograph, encoded once. Knows nothing of photographs or models."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from engine.bundle.vocabulary import Vocabulary, pad_matrix
from training.data.examples import DataError, Example


@dataclass(frozen=True, slots=True, eq=False)
class Pairs:
    """Sentences with another one each, row by row."""

    tokens: np.ndarray  # int64 (2 * pairs, longest): the sentences, then the others in the same order
    lengths: np.ndarray  # int64 (2 * pairs,)


@dataclass(frozen=True, slots=True, eq=False)
class Paraphrases:
    """The sentences of photographs that have at least two."""

    tokens: np.ndarray  # int64 (sentences, longest)
    lengths: np.ndarray  # int64 (sentences,)
    offsets: np.ndarray  # int64 (photographs + 1,): each one's first sentence

    @classmethod
    def build(cls, examples: Sequence[Example], vocabulary: Vocabulary, max_words: int) -> "Paraphrases":
        """Encodes the sentences. Raises DataError if no photograph has two."""
        kept = [example.captions for example in examples if len(example.captions) > 1]
        if not kept:
            raise DataError("no photograph of the sentences has two of them, so there are no paraphrases to learn from")
        sequences = [vocabulary.encode(text, max_words) for captions in kept for text in captions]
        return cls(
            pad_matrix(sequences, vocabulary.pad_id),
            np.array([len(sequence) for sequence in sequences], np.int64),
            np.concatenate([[0], np.cumsum([len(captions) for captions in kept], dtype=np.int64)]),
        )

    def drawn(self, generator: np.random.Generator, pairs: int) -> Pairs:
        """Returns pairs of as many different photographs, or of all of them if there are fewer."""
        counts = np.diff(self.offsets)
        photographs = generator.choice(len(counts), min(pairs, len(counts)), replace=False)
        among = counts[photographs]
        first = generator.integers(0, among)
        second = (first + generator.integers(1, among)) % among
        rows = np.concatenate([self.offsets[photographs] + first, self.offsets[photographs] + second])
        lengths = self.lengths[rows]
        return Pairs(self.tokens[rows, : lengths.max()], lengths)
