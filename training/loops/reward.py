"""CIDEr-D and BLEU of many sentences of ids at once. Knows no models and no images, and words only by id.

CIDEr-D is that of pycocoevalcap (Vedantam et al. 2015, with clipping and the length penalty), sentence by sentence,
but references are weighted only once, and each n-gram is one number.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from engine.bundle.vocabulary import Vocabulary, split
from training.data.examples import DataError

ORDERS = 4  # n-grams of 1 to 4 words
SIGMA = 6.0  # CIDEr-D's tolerance for differences in length, in words
LARGEST = 55_100  # ids of four words fit one int64


class Lexicon:
    """Ids for the words of references: those of the vocabulary, then a new one for each word that is not in it.

    So an unknown word of a reference matches nothing that the decoder can say, as in pycocoevalcap, instead of UNK.
    """

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._ids = dict(vocabulary.ids)
        self._end = vocabulary.end_id

    def encode(self, texts: Sequence[str], *, end: bool) -> list[np.ndarray]:
        """Returns the words of each text as int64 (words,); `end` adds END. Raises DataError for too many words."""
        rows = [[self._ids.setdefault(word, len(self._ids)) for word in split(text)] for text in texts]
        if len(self._ids) > LARGEST:
            raise DataError(
                f"the captions contain more than {LARGEST:,} different words, but rewards are computed with four words "
                "packed into one number, which takes no more: leave out a data set or --sentences"
            )
        return [np.array(row + [self._end] * end, dtype=np.int64) for row in rows]


@dataclass(frozen=True, slots=True, eq=False)
class Grams:
    """The n-grams of sentences, each once per sentence, ordered by sentence, then by key."""

    sentence: np.ndarray  # int64 (grams,)
    key: np.ndarray  # int64 (grams,)
    order: np.ndarray  # int64 (grams,): words in it, less one
    count: np.ndarray  # int64 (grams,): how often in its sentence


def grams_of(words: np.ndarray, lengths: np.ndarray) -> Grams:
    """Counts n-grams of words int64 (sentences, longest), of which the first `lengths`, int64 (sentences,), count."""
    shifted = words + 1  # so that no n-gram equals a shorter one padded with zeros
    columns = np.arange(words.shape[1])
    keys, sentences = [], []
    packed = np.zeros_like(shifted)
    for n in range(min(ORDERS, words.shape[1])):
        packed = packed[:, : words.shape[1] - n] * (LARGEST + 1) + shifted[:, n:]  # n-grams by their first word
        there = columns[: packed.shape[1]] < (lengths - n)[:, None]
        keys.append(packed[there])
        sentences.append(np.nonzero(there)[0])
    key, sentence = (np.concatenate([*parts, np.zeros(0, np.int64)]) for parts in (keys, sentences))
    ordered = np.lexsort((key, sentence))
    key, sentence = key[ordered], sentence[ordered]
    first = np.ones(len(key), dtype=bool)
    first[1:] = (key[1:] != key[:-1]) | (sentence[1:] != sentence[:-1])
    starts = np.flatnonzero(first)
    key = key[starts]
    bounds = np.array([(LARGEST + 1) ** n for n in range(1, ORDERS)], dtype=np.int64)
    order = np.searchsorted(bounds, key, side="right")
    return Grams(sentence[starts], key, order, np.diff(starts, append=len(first)))


@dataclass(frozen=True, slots=True, eq=False)
class Rarity:
    """How rare an n-gram is among images: its inverse document frequency in nats."""

    keys: np.ndarray  # int64 (known,), ascending
    weights: np.ndarray  # float64 (known,)
    unknown: float  # weight of every other n-gram

    @classmethod
    def count(cls, images: np.ndarray, grams: Grams, total: int, power: float) -> "Rarity":
        """Counts in how many of `total` images each n-gram occurs; `images`, int64 (sentences,), are the sentences'.

        power: the weights' exponent.
        """
        pairs = np.lexsort((images[grams.sentence], grams.key))
        key, image = grams.key[pairs], images[grams.sentence][pairs]
        new_key = np.diff(key, prepend=-1) != 0
        new_pair = new_key | (np.diff(image, prepend=-1) != 0)
        keys = key[new_key]
        frequencies = np.bincount(np.cumsum(new_key)[new_pair] - 1, minlength=len(keys))
        largest = np.log(float(total))
        return cls(keys, (largest - np.log(frequencies)) ** power, float(largest**power))

    def look_up(self, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns each n-gram's index among the known ones (len(self.keys) if unknown), and its weight."""
        places = np.searchsorted(self.keys, keys)
        known = self.keys.take(places, mode="clip") == keys
        weights = np.where(known, self.weights.take(places, mode="clip"), self.unknown)
        return np.where(known, places, len(self.keys)), weights


@dataclass(frozen=True, slots=True, eq=False)
class _Matched:
    """Sentences matched with the references of their images."""

    grams: Grams
    weights: np.ndarray  # float64 (grams,): how rare each is
    hit: np.ndarray  # int64 (hits,): the n-grams that occur in a reference
    held: np.ndarray  # float64 (hits, references): how often each occurs in each reference


class Scorer:
    """Scores sentences against the references of images.

    Document frequencies are those of the references. A `sigma` below CIDEr-D's penalises differences in length more.
    `power` is the exponent of the inverse document frequencies; above CIDEr-D's, rare words count more relative to
    common ones.
    """

    def __init__(self, references: Sequence[Sequence[np.ndarray]], *, sigma: float = SIGMA, power: float = 1.0) -> None:
        """references: int64 (words,) per reference per image, from `Lexicon.encode`, at least one per image."""
        self._sigma = sigma
        self.references = np.array([len(texts) for texts in references])  # (images,)
        rows = [row for texts in references for row in texts]
        lengths = np.array([len(row) for row in rows])
        words = np.zeros((len(rows), lengths.max(initial=0)), dtype=np.int64)
        words[np.arange(words.shape[1]) < lengths[:, None]] = np.concatenate(rows)
        image = np.repeat(np.arange(len(references)), self.references)  # (sentences,)
        slot = np.arange(len(rows)) - np.repeat(np.cumsum(self.references) - self.references, self.references)
        grams = grams_of(words, lengths)
        self.rarity = Rarity.count(image, grams, len(references), power)
        places, weights = self.rarity.look_up(grams.key)
        shape = len(references), int(self.references.max())
        self._norms = np.zeros((*shape, ORDERS))  # of each reference's weighted counts
        sums = (image[grams.sentence], slot[grams.sentence], grams.order)
        np.add.at(self._norms, sums, (grams.count * weights) ** 2)
        self._norms = np.sqrt(self._norms)
        self._bigrams = np.zeros(shape)
        self._bigrams[image, slot] = np.maximum(lengths - 1, 0)  # pycocoevalcap's length counts bigrams
        self._lengths = np.full(shape, np.inf)  # unused slots are never the nearest
        self._lengths[image, slot] = lengths
        pairs, row = np.unique(image[grams.sentence] * self._stride + places, return_inverse=True)
        self._pairs = pairs  # int64 (pairs,): an image and an n-gram of its references
        self._counts = np.zeros((len(pairs), shape[1]), dtype=np.uint16)  # how often it occurs in each reference
        self._counts[row, slot[grams.sentence]] = grams.count

    @property
    def _stride(self) -> int:
        return len(self.rarity.keys) + 1

    def cider(self, images: np.ndarray, words: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        """Returns CIDEr-D float64 (sentences,), from 0 to 10.

        images, int64 (sentences,), is each sentence's image; words, int64 (sentences, longest), has each sentence's
        ids, without START, in its first `lengths`, int64 (sentences,), columns.
        """
        matched = self._match(images, words, lengths)
        grams, weights, hit = matched.grams, matched.weights, matched.hit
        norms = np.bincount(grams.sentence * ORDERS + grams.order, (grams.count * weights) ** 2, len(words) * ORDERS)
        shared = np.minimum(grams.count[hit, None], matched.held) * matched.held * weights[hit, None] ** 2
        products = np.zeros((len(words), ORDERS, matched.held.shape[1]))
        np.add.at(products, (grams.sentence[hit], grams.order[hit]), shared)
        scale = np.sqrt(norms).reshape(-1, ORDERS, 1) * self._norms[images].transpose(0, 2, 1)
        np.divide(products, scale, out=products, where=scale > 0)
        apart = np.maximum(lengths - 1, 0)[:, None] - self._bigrams[images]  # (sentences, references)
        products *= np.exp(-(apart**2) / (2 * self._sigma**2))[:, None]
        scores: np.ndarray = 10 * products.mean(axis=1).sum(axis=1) / self.references[images]
        return scores

    def bleu(self, images: np.ndarray, words: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        """Returns each sentence's BLEU-4, float64 (sentences,), from 0 to 1; arguments as for `cider`.

        Counts of n-grams of two or more words are increased by one, matched and total (Lin and Och 2004), so that a
        sentence without a common 4-gram still scores above 0. The reference length is the nearest one.
        """
        matched = self._match(images, words, lengths)
        grams, hit = matched.grams, matched.hit
        most = np.minimum(grams.count[hit], matched.held.max(axis=1, initial=0))
        right = np.bincount(grams.sentence[hit] * ORDERS + grams.order[hit], most, len(words) * ORDERS)
        orders = np.arange(ORDERS)
        total = np.maximum(lengths[:, None] - orders, 0)  # (sentences, orders)
        more = orders > 0
        precision = (right.reshape(-1, ORDERS) + more) / np.maximum(total + more, 1)
        apart = np.abs(self._lengths[images] - lengths[:, None] + 0.25)  # of two equally near ones, the shorter
        nearest = self._lengths[images, apart.argmin(axis=1)]
        brevity = np.minimum(1.0, np.exp(1 - nearest / np.maximum(lengths, 1)))
        scores: np.ndarray = brevity * precision.prod(axis=1) ** (1 / ORDERS) * (lengths > 0)
        return scores

    def _match(self, images: np.ndarray, words: np.ndarray, lengths: np.ndarray) -> _Matched:
        grams = grams_of(words, lengths)
        places, weights = self.rarity.look_up(grams.key)
        wanted = images[grams.sentence] * self._stride + places
        rows = np.searchsorted(self._pairs, wanted)
        hit = np.flatnonzero(self._pairs.take(rows, mode="clip") == wanted)
        return _Matched(grams, weights, hit, self._counts[rows[hit]].astype(np.float64))
