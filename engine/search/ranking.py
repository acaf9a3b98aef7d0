"""How well photographs fit a query. Owns the formula and its weights; knows no database.

A photograph's score is the cosine between its vector and the query's, plus how likely the decoder finds the query under
the photograph, plus how many of the query's words its captions contain. docs/search.md says what each part is worth.
"""

from collections.abc import Sequence

import numpy as np

from engine.bundle.vocabulary import Vocabulary
from engine.decoding.decode import sentence_log_probs
from engine.model import Model
from engine.search.words import Term, overlap

NEAREST = 200  # candidates by vector
MATCHING = 200  # candidates by words
MATCHED = 10_000  # photographs that candidates by words are chosen from, where words are rare enough
RERANKED = 30  # of the candidates, those whose likelihood is computed: the part that takes longest
LIKELIHOOD = 0.12  # what a nat for each token weighs beside a cosine
OVERLAP = 0.05  # what all words of a query weigh beside a cosine
LONGEST = 24  # words of a query that the decoder reads: captions are no longer


def rare_words(terms: Sequence[Term], frequencies: dict[str, int]) -> list[str]:
    """Returns the words of a query, and what means the same, that bring candidates: the rare ones.

    Words that thousands of photographs have say little and take long.
    """
    words = sorted({word for term in terms for word in term.all}, key=lambda word: (frequencies[word], word))
    words = [word for word in words if frequencies[word]]
    most = np.searchsorted(np.cumsum([frequencies[word] for word in words]), MATCHED, side="right")
    return words[: max(1, int(most))]


def rarities(terms: Sequence[Term], frequencies: dict[str, int], photos: int) -> list[float]:
    """Returns what each term weighs: the logarithm of how rare it is, as in BM25 (Robertson and Zaragoza 2009).

    photos: those that frequencies were counted in.
    """
    counts = [max(frequencies[word] for word in term.all) for term in terms]
    return [float(np.log1p((max(photos - count, 0) + 0.5) / (count + 0.5))) for count in counts]


def overlaps(terms: Sequence[Term], rarity: Sequence[float], folded: Sequence[str]) -> np.ndarray:
    """Returns which part of a query the captions of each photograph contain, from 0 to 1: float32 (photos,)."""
    return np.array([overlap(terms, rarity, text) for text in folded], np.float32)


def known_words(vocabulary: Vocabulary, query: str) -> list[int]:
    """Returns the ids of START, the words of a query that the vocabulary has, and END."""
    ids = [vocabulary.ids[word] for word in vocabulary.split(query) if word in vocabulary.ids]
    special = {vocabulary.start_id, vocabulary.end_id, *vocabulary.never}
    return [vocabulary.start_id, *[id_ for id_ in ids if id_ not in special][:LONGEST], vocabulary.end_id]


def likelihoods(model: Model, sentence: Sequence[int], features: np.ndarray) -> np.ndarray:
    """Returns the mean log-probability of a token of a sentence under each photograph: float32 (photos,).

    features: float32 (photos, *feature_shape).
    """
    size, words = model.batch_size, len(model.bundle.vocabulary)
    parts = [
        sentence_log_probs(model.start(part), [list(sentence)] * len(part), words)
        for part in (features[i : i + size] for i in range(0, len(features), size))
    ]
    found: np.ndarray = np.concatenate([np.empty(0), *parts]).astype(np.float32) / (len(sentence) - 1)
    return found
