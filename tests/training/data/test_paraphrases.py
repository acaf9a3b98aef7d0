"""Paraphrases: two different sentences of the same photograph, each photograph once."""

import numpy as np
import pytest

from engine.bundle.vocabulary import Vocabulary
from training.data.examples import DataError, Example
from training.data.paraphrases import Paraphrases

WORDS = [f"word{i}" for i in range(40)]
VOCABULARY = Vocabulary.build([*WORDS], min_count=1)
# every sentence has a word of its own, which says whose it is
EXAMPLES = [Example(f"{n}.jpg", tuple(WORDS[i] for i in range(4 * n, 4 * n + max(1, n % 5)))) for n in range(10)]


def test_a_pair_is_two_different_sentences_of_one_photograph() -> None:
    paraphrases = Paraphrases.build(EXAMPLES, VOCABULARY, 20)
    generator, seen = np.random.default_rng(0), set()
    for _ in range(60):
        pairs = paraphrases.drawn(generator, 4)
        assert pairs.tokens.shape == (8, 3)
        assert pairs.lengths.tolist() == [3] * 8
        said = [WORDS.index(VOCABULARY.decode(row)) for row in pairs.tokens]
        for one, other in zip(said[:4], said[4:], strict=True):
            assert one // 4 == other // 4, "another photograph's"
            assert one != other
        assert len({one // 4 for one in said[:4]}) == 4, "a photograph twice in a batch"
        seen.update(said)
    two_or_more = {i for n in range(10) if n % 5 > 1 for i in range(4 * n, 4 * n + n % 5)}
    assert seen == two_or_more


def test_a_batch_has_no_more_pairs_than_there_are_photographs() -> None:
    pairs = Paraphrases.build(EXAMPLES, VOCABULARY, 20).drawn(np.random.default_rng(0), 500)
    assert len(pairs.tokens) == 2 * sum(n % 5 > 1 for n in range(10))


def test_sentences_without_a_second_one_are_refused() -> None:
    with pytest.raises(DataError, match="no photograph of the sentences has two of them"):
        Paraphrases.build(EXAMPLES[:2], VOCABULARY, 20)
