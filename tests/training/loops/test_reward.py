"""Laws of the reward: it is pycocoevalcap's CIDEr, sentence by sentence, and BLEU as its definition has it."""

import math
from collections import Counter
from collections.abc import Sequence
from statistics import fmean

import numpy as np
import pytest
from pycocoevalcap.cider.cider_scorer import CiderScorer

from engine.bundle.vocabulary import Vocabulary, pad_matrix, split
from training.data.examples import DataError
from training.loops import reward
from training.loops.reward import Lexicon, Scorer

WORDS = ["a", "b", "c", "d", "e", "f", "g", "h"]
VOCABULARY = Vocabulary.build([" ".join(WORDS[:6])], min_count=1)  # g and h are words that it lacks


def sentence(generator: np.random.Generator, words: Sequence[str], least: int = 0) -> str:
    return " ".join(generator.choice(words, generator.integers(least, 12)))


def corpus(seed: int, images: int = 30) -> tuple[list[list[str]], list[str]]:
    """References, one to four an image, and a sentence for each, sometimes a reference, sometimes empty."""
    generator = np.random.default_rng(seed)
    references = [[sentence(generator, WORDS, 1) for _ in range(generator.integers(1, 5))] for _ in range(images)]
    said = [texts[0] if generator.random() < 0.3 else sentence(generator, WORDS[:6]) for texts in references]
    return references, said


def padded(lexicon: Lexicon, texts: Sequence[str], *, end: bool = False) -> tuple[np.ndarray, np.ndarray]:
    rows = lexicon.encode(texts, end=end)
    # what stands behind a sentence must not matter
    return pad_matrix([row.tolist() for row in rows], 3), np.array([len(row) for row in rows])


@pytest.mark.parametrize("sigma", [6.0, 3.0])
def test_the_reward_is_pycocoevalcaps_cider_of_each_sentence(sigma: float) -> None:
    references, said = corpus(0)
    lexicon = Lexicon(VOCABULARY)
    scorer = Scorer([lexicon.encode(texts, end=False) for texts in references], sigma=sigma)
    scores = scorer.cider(np.arange(len(said)), *padded(lexicon, said))
    theirs = CiderScorer(sigma=sigma)
    for text, texts in zip(said, references, strict=True):
        theirs += (text, texts)
    mean, expected = theirs.compute_score()
    assert (expected > 0.5).sum() > 5  # the comparison is worth something
    np.testing.assert_allclose(scores, expected, atol=1e-9, rtol=0)
    assert scores.mean() == pytest.approx(mean, abs=1e-9)


@pytest.mark.parametrize("power", [0.5, 1.7])
def test_the_power_of_rarity_raises_the_inverse_document_frequencies(power: float) -> None:
    """Checked against CIDEr-D written out in plain Python."""
    references, said = corpus(4)

    def counts(text: str, n: int) -> Counter[tuple[str, ...]]:
        words = split(text)
        return Counter(tuple(words[i : i + n]) for i in range(len(words) - n + 1))

    def one(text: str, reference: str, n: int) -> float:
        frequency = Counter(gram for texts in references for gram in {g for each in texts for g in counts(each, n)})
        idf = {gram: math.log(len(references) / count) ** power for gram, count in frequency.items()}
        unknown = math.log(len(references)) ** power
        ours, theirs = (
            {gram: count * idf.get(gram, unknown) for gram, count in counts(each, n).items()}
            for each in (text, reference)
        )
        product = sum(min(value, theirs.get(gram, 0.0)) * theirs.get(gram, 0.0) for gram, value in ours.items())
        norms = math.prod(math.sqrt(sum(value**2 for value in each.values())) for each in (ours, theirs))
        apart = sum(counts(text, 2).values()) - sum(counts(reference, 2).values())
        return product / norms * math.exp(-(apart**2) / 72) if norms else 0.0

    lexicon = Lexicon(VOCABULARY)
    scorer = Scorer([lexicon.encode(texts, end=False) for texts in references], power=power)
    scores = scorer.cider(np.arange(len(said)), *padded(lexicon, said))
    expected = [
        10 * fmean(fmean(one(text, reference, n) for n in range(1, 5)) for reference in texts)
        for text, texts in zip(said, references, strict=True)
    ]
    assert max(expected) > 0.5
    np.testing.assert_allclose(scores, expected, atol=1e-9, rtol=0)


def test_sentences_may_come_in_any_order_and_number_an_image() -> None:
    references, said = corpus(3)
    lexicon = Lexicon(VOCABULARY)
    scorer = Scorer([lexicon.encode(texts, end=False) for texts in references])
    words, lengths = padded(lexicon, said)
    images = np.random.default_rng(0).integers(0, len(references), 50)
    which = np.random.default_rng(1).integers(0, len(said), 50)
    together = scorer.cider(images, words[which], lengths[which])
    for image, row, score in zip(images, which, together, strict=True):
        alone = scorer.cider(np.array([image]), words[row : row + 1, : lengths[row]], lengths[row : row + 1])
        assert alone[0] == pytest.approx(score, abs=1e-12)


def smoothed_bleu(said: list[str], references: list[list[str]]) -> float:
    """By its definition, word by word; n-grams beyond single words count as one more."""
    product = 1.0
    for n in range(1, 5):
        held = Counter(zip(*(said[i:] for i in range(n)), strict=False))
        most: Counter[tuple[str, ...]] = Counter()
        for words in references:
            most |= Counter(zip(*(words[i:] for i in range(n)), strict=False))
        product *= ((held & most).total() + (n > 1)) / (held.total() + (n > 1))
    nearest = min((abs(len(words) - len(said)), len(words)) for words in references)[1]
    return float(product**0.25 * min(1, np.exp(1 - nearest / len(said))))


def test_bleu_is_that_of_lin_and_och() -> None:
    references, said = corpus(4, images=200)
    lexicon = Lexicon(VOCABULARY)
    scorer = Scorer([lexicon.encode(texts, end=False) for texts in references])
    scores = scorer.bleu(np.arange(len(said)), *padded(lexicon, said))
    expected = [
        smoothed_bleu(text.split(), [words.split() for words in texts]) if text else 0.0
        for text, texts in zip(said, references, strict=True)
    ]
    assert min(expected) == 0
    assert max(expected) == 1
    assert len(set(expected)) > 50
    np.testing.assert_allclose(scores, expected, atol=1e-12, rtol=0)


def test_a_sentence_cut_before_its_end_is_worth_less_when_the_end_counts() -> None:
    references = [["a b c d", "a b c e"], ["f e d", "d d f"], ["c b a", "e f a"]]
    lexicon = Lexicon(VOCABULARY)
    scorer = Scorer([lexicon.encode(texts, end=True) for texts in references])
    both = [padded(lexicon, ["a b c d"], end=end) for end in (True, False)]
    whole, cut = (scorer.cider(np.array([0]), *given)[0] for given in both)
    assert whole > cut > 0


def test_words_that_the_vocabulary_lacks_are_told_apart() -> None:
    lexicon = Lexicon(VOCABULARY)
    (row,) = lexicon.encode(["a g h g"], end=True)
    assert row[0] == VOCABULARY.ids["a"]
    assert row[1] == row[3] != row[2]
    assert min(row[1], row[2]) >= len(VOCABULARY)
    assert row[-1] == VOCABULARY.end_id


def test_too_many_words_for_one_number_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (reward.LARGEST + 1) ** 4 < 2**63
    monkeypatch.setattr(reward, "LARGEST", 11)
    lexicon = Lexicon(VOCABULARY)  # six words and four that are none
    with pytest.raises(DataError, match=r"more than 11 different words.*: leave out a data set or --sentences"):
        lexicon.encode(["g h"], end=False)
