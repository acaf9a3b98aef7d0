"""Decoding options as clients of services write them, derived from the engine's table of options.

Owns how text becomes values, and JSON schemas. The engine says which options there are and which values they take.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from engine import DEFAULT_DECODING, Beam, DecodingOption, Greedy, OptionsError, Sample, decoding_options

Decoding = Greedy | Beam | Sample
DECODINGS: dict[str, type[Decoding]] = {way.__name__.lower(): way for way in (Greedy, Beam, Sample)}
DEFAULT = type(DEFAULT_DECODING).__name__.lower()
OPTIONS = {option.name: option for option in decoding_options()}
DIGITS = 18  # of a whole number: all of them fit into 64 bits
WHOLE = re.compile(rf"[+-]?[0-9]{{1,{DIGITS}}}")
DECIMAL = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?")
TYPES = {int: "integer", float: "number", str: "string"}  # JSON's


def read_decoding(given: Iterable[tuple[str, str]]) -> Decoding:
    """Returns the decoding that pairs of names and texts ask for. Raises OptionsError."""
    texts: dict[str, list[str]] = {}
    for name, text in given:
        texts.setdefault(name, []).append(text)
    way, *more = texts.pop("decoding", [DEFAULT])
    if more:
        raise OptionsError(f"decoding is given {1 + len(more)} times: give it once")
    return make_decoding({"decoding": way, **texts}, _read)


def make_decoding(
    given: Mapping[str, Any], read: Callable[[DecodingOption, Any], object] = lambda option, value: value
) -> Decoding:
    """Returns the decoding for `decoding` and its options. Raises OptionsError.

    read: converts what was given into the value of an option.
    """
    values = dict(given)
    way = values.pop("decoding", DEFAULT)
    if way not in DECODINGS:
        raise OptionsError(f"decoding must be one of {', '.join(DECODINGS)}", name="decoding", value=way)
    for name in values:
        if name not in OPTIONS:
            raise OptionsError(f"{name!r} is not an option: the options are decoding, {', '.join(OPTIONS)}")
        if DECODINGS[way] not in OPTIONS[name].ways:
            raise OptionsError(f"{name} needs decoding={' or '.join(ways_of(OPTIONS[name]))}, not {way}")
    read_values: dict[str, Any] = {name: read(OPTIONS[name], value) for name, value in values.items()}
    try:
        return DECODINGS[way](**read_values)
    except OptionsError as error:  # without the name of the class, which no client knows
        raise OptionsError(error.reason, name=error.name, value=error.value) from error


def ways_of(option: DecodingOption) -> list[str]:
    """Returns the names of the ways of decoding that take an option."""
    return [name for name, way in DECODINGS.items() if way in option.ways]


def summary(option: DecodingOption) -> str:
    """Returns what an option does, which ways of decoding take it, and what applies if it is left out."""
    ways = ways_of(option)
    only = "" if len(ways) == len(DECODINGS) else f"; only with decoding={' or '.join(ways)}"
    return f"{option.help}{only}; left out: {left_out(option)}"


def left_out(option: DecodingOption) -> str:
    """Returns what applies if an option is left out."""
    if option.default is None:
        return option.left_out
    return "none" if option.default in ("", ()) else f"{option.default}"


def schemas(max_rows: int) -> dict[str, dict[str, Any]]:
    """Returns the JSON schema of each option, by name, for a service with that many rows."""
    ways = {"type": "string", "enum": list(DECODINGS), "default": DEFAULT, "description": "how words are chosen"}
    return {"decoding": ways, **{name: schema(option, max_rows) for name, option in OPTIONS.items()}}


def schema(option: DecodingOption, max_rows: int) -> dict[str, Any]:
    """Returns the JSON schema of an option's values, for a service with that many rows."""
    described: dict[str, Any] = {"description": summary(option)}
    if option.kind is tuple:
        described["description"] += "; may be repeated; given once and empty: none"
        return {"type": "array", "items": {"type": "string"}, **described}
    described["type"] = TYPES[option.kind]
    if option.choices:
        described["enum"] = list(option.choices)
    if option.default is not None:
        described["default"] = option.default
    if option.least is not None:
        described["exclusiveMinimum" if option.above_least else "minimum"] = option.least
    limits = [option.most, max_rows if option.counts_rows else None, 10**DIGITS - 1 if option.kind is int else None]
    if some := [limit for limit in limits if limit is not None]:
        described["maximum"] = min(some)
    return described


def description() -> str:
    """Returns what the engine's own documentation says about the options, as Markdown."""
    parts = {"every decoding": Greedy.__base__, **{f"decoding={name}": way for name, way in DECODINGS.items()}}
    return "\n\n".join(f"**{title}**: {' '.join((record.__doc__ or '').split())}" for title, record in parts.items())


def _read(option: DecodingOption, texts: list[str]) -> object:
    """Returns the value of an option from its texts. Raises OptionsError."""
    if option.kind is tuple:
        return tuple(filter(None, texts))
    if len(texts) > 1:
        raise OptionsError(f"{option.name} is given {len(texts)} times: give it once")
    text = texts[0]
    if option.kind is str:
        return text
    if option.kind is int and WHOLE.fullmatch(text):
        return int(text)
    if option.kind is float and DECIMAL.fullmatch(text):
        return float(text)
    what = f"a whole number of at most {DIGITS} digits" if option.kind is int else "a number"
    raise OptionsError(f"{option.name} must be {what}", name=option.name, value=text)
