"""What captions are like without asking whether they are right: lengths, words, repetition. Knows no metric."""

from collections.abc import Iterable, Sequence
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
    """Of a set of captions; lengths in words, shares from 0 to 1.

    distinct: different captions among all; unseen: captions that no training caption equals word for word (None:
    the training captions were not at hand); repeating_two and repeating: captions with a sequence of two or of three
    words twice; badly_ending: captions that end in a word like "a" or "with".
    """

    captions: int
    mean_length: float
    length_deviation: float
    shortest: int
    longest: int
    vocabulary: int
    distinct: float
    unseen: float | None
    repeating_two: float
    repeating: float
    badly_ending: float

    def rows(self) -> list[tuple[str, str]]:
        """Returns what is to be read: names and figures."""
        unseen = "not known" if self.unseen is None else f"{self.unseen:.1%}"
        return [
            ("words a caption", f"{self.mean_length:.1f} ± {self.length_deviation:.1f}"),
            ("shortest to longest", f"{self.shortest} to {self.longest}"),
            ("different words", f"{self.vocabulary:,}"),
            ("different captions", f"{self.distinct:.1%}"),
            ("never seen in training", unseen),
            ("say two words twice", f"{self.repeating_two:.1%}"),
            ("say three words twice", f"{self.repeating:.1%}"),
            ("end badly", f"{self.badly_ending:.1%}"),
        ]


def describe(captions: Sequence[str], training: Iterable[str] | None) -> Statistics:
    """Describes captions, at least one; `training` are the captions a model was trained on, None where unknown."""
    said = [tuple(split(caption)) for caption in captions]
    seen = None if training is None else {tuple(split(caption)) for caption in training}
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
        repeating_two=_share(repeats(words, 2) for words in said),
        repeating=_share(repeats(words, 3) for words in said),
        badly_ending=_share(words[-1:] != () and words[-1] in BAD_ENDINGS for words in said),
    )


def repeats(words: Sequence[str], length: int) -> bool:
    """Whether some sequence of so many words appears twice; the two may overlap."""
    runs = [tuple(words[start : start + length]) for start in range(len(words) - length + 1)]
    return len(set(runs)) < len(runs)


def _share(truths: Iterable[bool]) -> float:
    return float(np.mean(list(truths)))
