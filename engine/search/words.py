"""Words of captions and queries, and which of them mean the same. Knows no index.

Forms of a word are folded into one ("dogs" into "dog", "running" into "run"), in captions and in queries alike. Rules
for endings are Harman's "S" stemmer (How effective is suffixing?, JASIS 42, 1991) and, for verbs, two endings more.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from engine.errors import OptionsError
from engine.search.related import IRREGULAR, RELATED


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


VERSION = 1
"""Of the folding: an index that holds words of another version folds them again."""
MAX_WORDS = 64
"""In a query: captions rarely have more than 20, and each word costs time."""
MAX_CHARACTERS = 100_000
STOPPED = _set(
    "a an and are as at be been being by for from had has have he her his in into is it its of on or she some that "
    "the their there these they this those to was were which who whose with"
)
"""Words that say nothing of what a photograph shows. "Up", "down", "near" and "behind" do."""
WORD = re.compile(r"\w+")
VOWELS = frozenset("aeiouy")
DOUBLED = frozenset("bdgkmnprtv")  # "running", "hugged"; not "falling", "kissing", "buzzing"
LOST_AN_E = re.compile("[^aeiouy]*[aeiouy][^aeiouywx]")  # "rid" of "riding", which is no "ridding"
KEPT = _set("evening bed ring king string spring wing red shed sled speed feed seed need weed bleed thing ceiling")
SAME_IN_PLURAL = _set("glass grass dress bus gas chess tennis canvas lens series news jeans pants shorts")


@dataclass(frozen=True, slots=True)
class Term:
    """A word of a query: the folded word, and folded words that mean the same or are kinds of it."""

    word: str
    others: tuple[str, ...] = ()

    @property
    def all(self) -> tuple[str, ...]:
        """The word and the others."""
        return self.word, *self.others


def words_of(text: str) -> Iterator[str]:
    """Yields the folded words of a text that say what is shown, in order."""
    for match in WORD.finditer(text.casefold()):
        if (word := match.group()) not in STOPPED:
            yield fold(word)


def folded(texts: Iterable[str]) -> str:
    """Returns the folded words of captions, each once, as the text that an index searches."""
    return " ".join(dict.fromkeys(word for text in texts for word in words_of(text)))


def terms_of(query: str) -> tuple[Term, ...]:
    """Returns the different words of a query. Raises OptionsError for none, or for more than MAX_WORDS."""
    if len(query) > MAX_CHARACTERS:
        raise OptionsError(f"a query may have {MAX_CHARACTERS:,} characters, and this one has {len(query):,}")
    found = WORD.findall(query)
    if not found:
        raise OptionsError("the query has no words: describe what the photograph shows, such as two dogs on a beach")
    if len(found) > MAX_WORDS:
        raise OptionsError(f"a query may have {MAX_WORDS} words, and this one has {len(found):,}: shorten it")
    said = dict.fromkeys(words_of(query)) or dict.fromkeys(map(fold, map(str.casefold, found)))
    return tuple(Term(word, tuple(other for other in _RELATED.get(word, ()) if other != word)) for word in said)


def overlap(terms: Sequence[Term], rarity: Sequence[float], text: str) -> float:
    """Returns how much of a query the folded words of a photograph contain, from 0 to 1.

    rarity: what each term weighs. A word that means the same counts four fifths.
    """
    there = set(text.split(" "))
    whole = sum(rarity)
    return sum(weight * _matched(term, there) for term, weight in zip(terms, rarity, strict=True)) / max(whole, 1e-9)


def _matched(term: Term, there: set[str]) -> float:
    if term.word in there:
        return 1.0
    return 0.8 if any(other in there for other in term.others) else 0.0


def fold(word: str) -> str:
    """Returns the form of a lower-case word that all its forms share. It need not be a word itself."""
    word = IRREGULAR.get(word, word)
    if len(word) < 4 or word in KEPT or word in SAME_IN_PLURAL or not word.isascii():
        return word
    singular = _singular(word)
    singular = IRREGULAR.get(singular, singular)
    return singular if singular in KEPT else _stem(singular)


def _singular(word: str) -> str:
    if word.endswith("ies") and not word.endswith(("eies", "aies")):
        return f"{word[:-3]}y" if len(word) > 4 else word[:-1]
    if word.endswith(("sses", "shes", "ches", "xes", "zzes")):
        return word[:-2]
    if word.endswith("es") and not word.endswith(("aes", "ees", "oes")):
        return word[:-1]
    if word.endswith("oes") and len(word) > 4:
        return word[:-2]
    if word.endswith("s") and not word.endswith(("us", "ss", "is")):
        return word[:-1]
    return word


def _stem(word: str) -> str:
    """Takes off -ing and -ed, and a final e, so that "dance" and "dancing" are one; "ride" and "riding" keep it."""
    for ending in ("ing", "ed"):
        stem = word[: -len(ending)]
        if word.endswith(ending) and len(stem) > 1 and any(letter in VOWELS for letter in stem):
            if len(stem) > 2 and stem[-1] == stem[-2] and stem[-1] in DOUBLED and stem[-3] in VOWELS:
                return stem[:-1]
            return f"{stem}e" if LOST_AN_E.fullmatch(stem) else stem
    stem = word.removesuffix("e")
    return word if len(stem) < 3 or LOST_AN_E.fullmatch(stem) else stem


_RELATED: dict[str, tuple[str, ...]] = {
    fold(word): tuple(dict.fromkeys(fold(other) for other in others)) for word, others in RELATED.items()
}
