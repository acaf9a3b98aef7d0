"""Decoding options as a client writes them, in query parameters or form fields. Derived from the engine's records.

Owns names, how text becomes values, and their JSON schemas; which values make sense is the engine's to say.
"""

import re
import types
import typing
from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Any

from engine import Beam, Greedy, OptionsError, Sample

Decoding = Greedy | Beam | Sample
DECODINGS: dict[str, type[Decoding]] = {"greedy": Greedy, "beam": Beam, "sample": Sample}
LEFT_OUT = {"with_scores"}  # an answer always has scores
WHOLE = re.compile(r"[+-]?[0-9]{1,18}")
DECIMAL = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?")
MOST = 10**18
CHOICES = {"style": ("plain", "sentence")}
ROWS = {"beam_size", "num_hypotheses", "num_samples"}  # of which a service has only so many
CLASS = re.compile(r"(Greedy|Beam|Sample)(\((?P<value>\w+=.*)\): (?=\w+ must be )|\(\))", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Option:
    """One option: its type (int, float, str or tuple, of words), its default, and the ways of decoding that take it."""

    name: str
    kind: type
    default: object
    ways: tuple[str, ...]

    def read(self, texts: list[str]) -> object:
        """Returns the value that is written. Raises OptionsError."""
        if self.kind is tuple:
            return tuple(filter(None, texts))
        if len(texts) > 1:
            raise OptionsError(f"{self.name} is given {len(texts)} times: give it once")
        text = texts[0]
        if self.kind is int and WHOLE.fullmatch(text):
            return int(text)
        if self.kind is float and DECIMAL.fullmatch(text):
            return float(text)
        if self.kind is str:
            return text
        what = "a whole number of at most 18 digits" if self.kind is int else "a number"
        raise OptionsError(f"{self.name}={text!r}: {self.name} must be {what}")

    def schema(self, max_rows: int = MOST) -> dict[str, Any]:
        """Returns the JSON schema of its values, for a service of so many rows."""
        ways = "" if len(self.ways) == len(DECODINGS) else f"Only with decoding={' or '.join(self.ways)}. "
        if self.kind is tuple:
            left_out = "the default of the model" if self.default is None else "none"
            text = f"{ways}May be repeated; given once and empty: none. Left out: {left_out}."
            return {"type": "array", "items": {"type": "string"}, "description": text}
        name = {int: "integer", float: "number", str: "string"}[self.kind]
        limits: dict[str, Any] = {"enum": list(CHOICES[self.name])} if self.name in CHOICES else {}
        if self.kind is not str:
            limits = self._bounds(max_rows if self.name in ROWS else MOST)
        stated = {} if self.default is None else {"default": self.default}
        return {"type": name, **limits, **stated} | ({"description": ways.strip()} if ways else {})

    def _bounds(self, most: int) -> dict[str, int]:
        """Returns the bounds of the numbers that the engine takes, of those that `read` reads; none is above `most`."""
        least = next(number for number in (0, 1) if self._takes(number))
        first_not = bisect_left(range(MOST), 1, lo=least + 1, key=lambda number: not self._takes(number))
        if self.kind is int:
            return {"minimum": least, "maximum": min(first_not - 1, most)}
        lower = {"exclusiveMinimum": 0} if least else {"minimum": 0}
        return lower if first_not == MOST else lower | {"maximum": first_not - 1}

    def _takes(self, number: int) -> bool:
        way: Any = DECODINGS[self.ways[0]]
        try:
            way(**{self.name: number})
        except OptionsError:
            return False
        return True


def _kind(annotation: Any) -> type:
    """Returns the type behind `int | None` or `tuple[str, ...]`."""
    if isinstance(annotation, types.UnionType):
        annotation = next(each for each in annotation.__args__ if each is not types.NoneType)
    kind: type = typing.get_origin(annotation) or annotation
    return kind


def _derived() -> dict[str, Option]:
    found: dict[str, Option] = {}
    for way, record in DECODINGS.items():
        hints = typing.get_type_hints(record)
        for each in fields(record):
            if each.name not in LEFT_OUT:
                ways = found[each.name].ways if each.name in found else ()
                found[each.name] = Option(each.name, _kind(hints[each.name]), each.default, (*ways, way))
    return found


OPTIONS = _derived()


def read_decoding(given: Iterable[tuple[str, str]]) -> Decoding:
    """Returns how to decode, from names and texts as they came. Raises OptionsError."""
    texts: dict[str, list[str]] = {}
    for name, text in given:
        texts.setdefault(name, []).append(text)
    way, *more = texts.pop("decoding", ["greedy"])
    if more or way not in DECODINGS:
        raise OptionsError(f"decoding={way!r}: decoding must be one of {', '.join(DECODINGS)}, given once")
    for name in texts:
        if name not in OPTIONS:
            raise OptionsError(f"{name!r} is no option: the options are decoding, {', '.join(OPTIONS)}")
        if way not in OPTIONS[name].ways:
            raise OptionsError(f"{name} needs decoding={' or '.join(OPTIONS[name].ways)}, not {way}")
    values: dict[str, Any] = {name: OPTIONS[name].read(written) for name, written in texts.items()}
    try:
        return DECODINGS[way](**values)
    except OptionsError as error:
        raise OptionsError(CLASS.sub(_outside, str(error))) from error


def _outside(match: re.Match[str]) -> str:
    """Returns what a client calls that which has a name of Python's in a message."""
    return f"{match['value']}: " if match["value"] else f"decoding={match[1].lower()}"


def schemas(max_rows: int = MOST) -> dict[str, dict[str, Any]]:
    """Returns the JSON schema of each option, by name, for a service of so many rows."""
    ways = {"type": "string", "enum": list(DECODINGS), "default": "greedy", "description": "How words are chosen."}
    return {"decoding": ways, **{name: option.schema(max_rows) for name, option in OPTIONS.items()}}


def description() -> str:
    """Returns what the engine's own documentation says of the options, as Markdown."""
    parts = {"every decoding": Greedy.__base__, **{f"decoding={name}": way for name, way in DECODINGS.items()}}
    return "\n\n".join(f"**{title}**: {_said(record)}" for title, record in parts.items())


def _said(record: type | None) -> str:
    paragraphs = (record.__doc__ or "").split("\n\n")
    kept = (each for each in paragraphs if not any(name in each for name in LEFT_OUT))
    return " ".join(" ".join(kept).split())
