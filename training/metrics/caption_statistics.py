"""Statistics of captions, independent of whether they are right: lengths, words, repetition. Knows no metric."""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from engine.bundle.vocabulary import split

# Words that leave a sentence unfinished: in the 35,000 captions that people wrote for Flickr8k's training and
# development photographs none of them ends more than one in 2,000, "on", "up" or "another" do and are not here.
BAD_ENDINGS = frozenset(
    [
        *("a", "an", "the", "this", "that", "these", "those", "my", "your", "his", "its", "our", "their"),
        *("some", "every", "each", "very", "and", "or", "but", "nor", "as", "than"),
        *("of", "with", "at", "for", "from", "in", "into", "onto", "to", "through", "between", "against", "beside"),
        *("across", "along", "toward", "towards", "next", "near", "under", "while", "where", "when", "who", "which"),
        *("is", "are", "was", "were", "be", "been", "being", "has", "have", "had"),
    ]
)


@dataclass(frozen=True, slots=True)
class Statistics:
    """Statistics of a set of captions; lengths in words, shares from 0 to 1.

    distinct: different captions among all; unseen: captions that no training caption equals word for word; fluent:
    captions each of whose word trigrams occurs in a training caption (both None: there were no training captions);
    repeating_two and repeating: captions with a sequence of two or of three words twice; badly_ending: captions that
    end in a word like "a" or "with".
    """

    captions: int
    mean_length: float
    length_deviation: float
    shortest: int
    longest: int
    vocabulary: int
    distinct: float
    unseen: float | None
    fluent: float | None
    repeating_two: float
    repeating: float
    badly_ending: float

    def rows(self) -> list[tuple[str, str]]:
        """Returns names and figures for printing."""
        unseen, fluent = ("not known" if share is None else f"{share:.1%}" for share in (self.unseen, self.fluent))
        return [
            ("words a caption", f"{self.mean_length:.1f} ± {self.length_deviation:.1f}"),
            ("shortest to longest", f"{self.shortest} to {self.longest}"),
            ("different words", f"{self.vocabulary:,}"),
            ("different captions", f"{self.distinct:.1%}"),
            ("never seen in training", unseen),
            ("all trigrams people's", fluent),
            ("say two words twice", f"{self.repeating_two:.1%}"),
            ("say three words twice", f"{self.repeating:.1%}"),
            ("end badly", f"{self.badly_ending:.1%}"),
        ]


def describe(captions: Sequence[str], training: Iterable[str] | None) -> Statistics:
    """Describes captions, at least one; `training` are the captions a model was trained on, None where unknown."""
    said = [tuple(split(caption)) for caption in captions]
    seen = None if training is None else {tuple(split(caption)) for caption in training}
    trigrams = None if seen is None else {trigram for words in seen for trigram in _trigrams(words)}
    lengths = np.array([len(words) for words in said])
    return Statistics(
        captions=len(said),
        mean_length=float(lengths.mean()),
        length_deviation=float(lengths.std()),
        shortest=int(lengths.min()),
        longest=int(lengths.max()),
        vocabulary=len({word for words in said for word in words}),
        distinct=len(set(said)) / len(said),
        unseen=None if seen is None else _share(words not in seen for words in said),
        fluent=None if trigrams is None else _share(trigrams.issuperset(_trigrams(words)) for words in said),
        repeating_two=_share(repeats(words, 2) for words in said),
        repeating=_share(repeats(words, 3) for words in said),
        badly_ending=_share(words[-1:] != () and words[-1] in BAD_ENDINGS for words in said),
    )


def repeats(words: Sequence[str], length: int) -> bool:
    """Returns whether some sequence of this many words appears twice; the two may overlap."""
    runs = [tuple(words[start : start + length]) for start in range(len(words) - length + 1)]
    return len(set(runs)) < len(runs)


def overuse(captions: Sequence[str], references: Sequence[Sequence[str]], least: float = 0.02) -> dict[str, float]:
    """Returns, for each common word, how much more often it is in captions than in references, most overused first.

    Words are common if at least a share `least` of the captions contain them. An image's references together count as
    one caption. The value is infinite if no reference contains the word.
    """
    ours = Counter(word for caption in captions for word in set(split(caption)))
    theirs: dict[str, float] = defaultdict(float)
    for texts in references:
        for text in texts:
            for word in set(split(text)):
                theirs[word] += 1 / len(texts)
    common = {word: count for word, count in ours.items() if count >= least * len(captions)}
    ratios = {word: count / theirs[word] if word in theirs else math.inf for word, count in common.items()}
    return dict(sorted(ratios.items(), key=lambda item: (-item[1], item[0])))


def _trigrams(words: Sequence[str]) -> Iterator[tuple[str, ...]]:
    return zip(words, words[1:], words[2:], strict=False)


def _share(truths: Iterable[bool]) -> float:
    return float(np.mean(list(truths)))
