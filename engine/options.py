"""How to decode: greedy, beam or sampling, with their constraints. Owns the values and their checks; searches nothing.

None in a field means the default that the bundle states.
"""

from collections.abc import Iterable
from dataclasses import dataclass, fields

from engine.validation import is_int, is_number, plain, require

STYLES = "plain", "sentence"
LONGEST = 1000  # tokens: room for a sentence is taken before it is written


def _require(condition: bool, record: object, name: str, what: str) -> None:
    require(condition, type(record).__name__, name, getattr(record, name), what)


@dataclass(frozen=True, slots=True, kw_only=True)
class Constraints:
    """What every way of decoding can be told about the sentence.

    max_length counts tokens, the end included; a sentence that reaches it without its end is unfinished.
    min_length counts words before the end may come. prefix is text that each sentence starts with. Words in
    suppress never appear (words that the model does not know cannot appear anyway). No sequence of
    no_repeat_ngram_size words appears twice, and no shorter one twice in a row or on both sides of "and"; 0 allows
    repeats. No sentence ends in a word of bad_endings, such as "a"
    or "with"; () allows any end. A prefix stands even where it breaks another rule. style is how `text` is written,
    the tokens staying the same: "plain" is words and spaces, "sentence" starts with a capital and ends in a full stop.
    """

    max_length: int | None = None
    min_length: int = 0
    prefix: str = ""
    suppress: tuple[str, ...] = ()
    no_repeat_ngram_size: int | None = None
    bad_endings: tuple[str, ...] | None = None
    style: str = "plain"

    def __post_init__(self) -> None:
        for option in fields(self):
            object.__setattr__(self, option.name, plain(getattr(self, option.name)))
        fits = self.max_length is None or (is_int(self.max_length, 1) and self.max_length <= LONGEST)
        _require(fits, self, "max_length", f"a whole number from 1 to {LONGEST:,}")
        _require(is_int(self.min_length, 0), self, "min_length", "a whole number from 0")
        _require(isinstance(self.prefix, str), self, "prefix", "text")
        self._take_words("suppress")
        if self.bad_endings is not None:
            self._take_words("bad_endings")
        fits = self.no_repeat_ngram_size is None or is_int(self.no_repeat_ngram_size, 0)
        _require(fits, self, "no_repeat_ngram_size", "a whole number from 0")
        _require(isinstance(self.style, str) and self.style in STYLES, self, "style", f"one of {', '.join(STYLES)}")

    def _take_words(self, name: str) -> None:
        words = getattr(self, name)
        several = isinstance(words, Iterable) and not isinstance(words, str)
        _require(several, self, name, "a sequence of words, not one text")
        object.__setattr__(self, name, tuple(words))
        _require(all(isinstance(word, str) for word in getattr(self, name)), self, name, "a sequence of words")


@dataclass(frozen=True, slots=True, kw_only=True)
class Greedy(Constraints):
    """The likeliest word at each step.

    with_scores=False leaves out how likely the words are, and is a little faster: score and log_prob are then NaN,
    and token_log_probs is empty.
    """

    with_scores: bool = True

    def __post_init__(self) -> None:
        super(Greedy, self).__post_init__()  # the bare super() does not survive slots=True
        _require(isinstance(self.with_scores, bool), self, "with_scores", "True or False")


@dataclass(frozen=True, slots=True, kw_only=True)
class Beam(Constraints):
    """Beam search: beam_size sentences grow side by side, the num_hypotheses best are returned.

    A sentence's score is its log-probability / length ** length_penalty: 0 favours short sentences, 1 compares
    the mean log-probability of a token. More hypotheses than the bundle's default beam_size widen the beam.
    """

    beam_size: int | None = None
    num_hypotheses: int = 1
    length_penalty: float | None = None

    def __post_init__(self) -> None:
        super(Beam, self).__post_init__()
        _require(self.beam_size is None or is_int(self.beam_size, 1), self, "beam_size", "a whole number from 1")
        _require(is_int(self.num_hypotheses, 1), self, "num_hypotheses", "a whole number from 1")
        fits = self.beam_size is None or self.num_hypotheses <= self.beam_size
        _require(fits, self, "num_hypotheses", f"at most beam_size ({self.beam_size})")
        fits = self.length_penalty is None or (is_number(self.length_penalty) and 0 <= self.length_penalty <= 10)
        _require(fits, self, "length_penalty", "a number from 0 to 10")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample(Constraints):
    """Draws num_samples sentences from softmax(logits / temperature), cut to the top_k likeliest words (0: all)
    and to the fewest words that hold the probability top_p.

    The same seed gives an image the same words wherever it stands in a batch: all images then draw with the same
    random numbers. None draws anew each time and for each image. Equal draws are returned once, so there may be
    fewer than num_samples.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int | None = None
    num_samples: int = 1

    def __post_init__(self) -> None:
        super(Sample, self).__post_init__()
        fits = is_number(self.temperature) and self.temperature > 0
        _require(fits, self, "temperature", "a number above 0 (Greedy() is the limit at 0)")
        _require(is_int(self.top_k, 0), self, "top_k", "a whole number from 0")
        _require(is_number(self.top_p) and 0 < self.top_p <= 1, self, "top_p", "a number above 0 and up to 1")
        _require(self.seed is None or is_int(self.seed, 0), self, "seed", "a whole number from 0")
        _require(is_int(self.num_samples, 1), self, "num_samples", "a whole number from 1")


Decoding = Greedy | Beam | Sample
