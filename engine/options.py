"""How to decode: greedy, beam or sampling, with their constraints. Declares each option once; searches nothing.

What an option takes and what it does stands beside its field. Constructors check by it, and whatever offers options to
people (command line, services, documentation) is made from `decoding_options()`.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from functools import cache
from types import NoneType
from typing import Any, get_args, get_origin

from engine.errors import OptionsError
from engine.validation import is_int, is_number, plain, require

LONGEST = 1000  # tokens: room for a sentence is taken before it is written
MOST_ROWS = 10_000  # sentences of one image: a step holds a number for each word of the vocabulary and each of them
BUNDLE = "the bundle's default"


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodingOption:
    """A field of Greedy, Beam or Sample, with all that is needed to offer it to people.

    ways: the classes that have it. kind: int, float, str, or tuple, which means words. default: None means what
    `left_out` says. least, most: bounds of a number, None where there is none; above_least: least itself is too
    little. choices: the only texts that are taken, where there are any. counts_rows: so many sentences grow side by
    side, and a service has room for only so many.
    """

    name: str
    ways: tuple[type, ...]
    kind: type
    help: str
    default: object
    left_out: str = ""
    least: int | None = None
    most: int | None = None
    above_least: bool = False
    choices: tuple[str, ...] = ()
    counts_rows: bool = False

    @property
    def rule(self) -> str:
        """What it takes, as in "a whole number from 1 to 1,000"."""
        if self.kind is tuple:
            return "a sequence of words"
        if self.kind is str:
            return f"one of {', '.join(self.choices)}" if self.choices else "text"
        lower = f"above {self.least}" if self.above_least else f"from {self.least}"
        upper = "" if self.most is None else f"{' and up' if self.above_least else ''} to {self.most:,}"
        return f"a {'whole ' if self.kind is int else ''}number {lower}{upper}"

    def takes(self, value: Any) -> bool:
        """Says whether a value makes sense, whatever the other options are."""
        if value is None:
            return self.default is None
        if self.kind is tuple:
            return isinstance(value, tuple) and all(isinstance(word, str) for word in value)
        if self.kind is str:
            return isinstance(value, str) and (not self.choices or value in self.choices)
        if not (is_int(value) if self.kind is int else is_number(value)):
            return False
        enough = self.least is None or (value > self.least if self.above_least else value >= self.least)
        return enough and (self.most is None or value <= self.most)


def _option(help: str, default: object = None, **declared: Any) -> Any:
    """Returns a field that declares an option: see DecodingOption, which gets name, ways and kind from the class."""
    return field(default=default, metadata={"help": help, **declared})


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
    None in a field means the default that the bundle states.
    """

    max_length: int | None = _option("most tokens, the end included", least=1, most=LONGEST, left_out=BUNDLE)
    min_length: int = _option("fewest words before the end", 0, least=0)
    prefix: str = _option("text that each sentence starts with", "")
    suppress: tuple[str, ...] = _option("words that never appear", ())
    no_repeat_ngram_size: int | None = _option(
        "no sequence of so many words appears twice; 0 allows repeats", least=0, left_out=BUNDLE
    )
    bad_endings: tuple[str, ...] | None = _option("words that no sentence ends in", left_out=BUNDLE)
    style: str = _option(
        "how the text is written: sentence starts with a capital and ends in a full stop",
        "plain",
        choices=("plain", "sentence"),
    )

    def __post_init__(self) -> None:
        for option in decoding_options():
            if isinstance(self, option.ways):
                object.__setattr__(self, option.name, self._checked(option))

    def _checked(self, option: DecodingOption) -> object:
        """Returns an option's value, words as a tuple. Raises OptionsError."""
        owner, value = type(self).__name__, plain(getattr(self, option.name))
        if option.kind is tuple and value is not option.default:
            several = isinstance(value, Iterable) and not isinstance(value, str)
            require(several, owner, option.name, value, f"{option.rule}, not one text")
            value = tuple(value)  # type: ignore[arg-type]
        require(option.takes(value), owner, option.name, value, option.rule)
        return value


@dataclass(frozen=True, slots=True, kw_only=True)
class Greedy(Constraints):
    """The likeliest word at each step: the fastest way."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Beam(Constraints):
    """Beam search: beam_size sentences grow side by side, the num_hypotheses best are returned.

    A sentence's score is its log-probability / length ** length_penalty: 0 favours short sentences, 1 compares
    the mean log-probability of a token. Without a beam_size it is the bundle's, or num_hypotheses if that is more.
    """

    beam_size: int | None = _option(
        "sentences that grow side by side", least=1, most=MOST_ROWS, counts_rows=True, left_out=BUNDLE
    )
    num_hypotheses: int = _option(
        "sentences that are returned: at most the beam size if that is given, else the beam grows with them",
        1,
        least=1,
        most=MOST_ROWS,
        counts_rows=True,
    )
    length_penalty: float | None = _option(
        "score = log-probability / length ** length_penalty: 0 favours short sentences",
        least=0,
        most=10,
        left_out=BUNDLE,
    )

    def __post_init__(self) -> None:
        super(Beam, self).__post_init__()  # the bare super() does not survive slots=True
        fits = self.beam_size is None or self.num_hypotheses <= self.beam_size
        what = f"at most beam_size ({self.beam_size}); leave beam_size out to let the beam grow"
        require(fits, "Beam", "num_hypotheses", self.num_hypotheses, what)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample(Constraints):
    """Draws num_samples sentences from softmax(logits / temperature), cut to the top_k likeliest words (0: all)
    and to the fewest words that hold the probability top_p.

    The lower the temperature, the nearer to greedy decoding.
    The same seed gives an image the same words wherever it stands in a batch: all images then draw with the same
    random numbers. None draws anew each time and for each image. Equal draws are returned once, so there may be
    fewer than num_samples.
    """

    temperature: float = _option("below 1 favours likely words, above 1 unlikely ones", 1.0, least=0, above_least=True)
    top_k: int = _option("draw from so many likeliest words; 0: from all", 0, least=0)
    top_p: float = _option(
        "draw from the fewest words that hold this probability", 1.0, least=0, most=1, above_least=True
    )
    seed: int | None = _option("the same seed draws the same words", least=0, left_out="by chance")
    num_samples: int = _option("sentences that are drawn", 1, least=1, most=MOST_ROWS, counts_rows=True)


Decoding = Greedy | Beam | Sample
DEFAULT_DECODING: Decoding
"""How captions are decoded where nobody says: as the bundle does, whose defaults are a beam's."""


@cache
def decoding_options() -> tuple[DecodingOption, ...]:
    """Returns every option of decoding: those that all ways have first, then those of Beam, then those of Sample."""
    ways = (Greedy, Beam, Sample)
    declared = {each.name: each for way in ways for each in fields(way)}
    having = {name: tuple(way for way in ways if name in way.__dataclass_fields__) for name in declared}
    return tuple(
        DecodingOption(name=name, ways=having[name], kind=_kind(each.type), default=each.default, **each.metadata)
        for name, each in declared.items()
    )


def require_decoding(decoding: object) -> None:
    """Raises OptionsError unless it is a way of decoding."""
    if not isinstance(decoding, Decoding):
        raise OptionsError("decoding must be a Greedy(), Beam() or Sample()", name="decoding", value=decoding)


def _kind(annotation: Any) -> type:
    """Returns the type behind `int | None` or `tuple[str, ...]`."""
    parts = get_args(annotation)
    if NoneType in parts:
        annotation = next(part for part in parts if part is not NoneType)
    kind: type = get_origin(annotation) or annotation
    return kind


DEFAULT_DECODING = Beam()
