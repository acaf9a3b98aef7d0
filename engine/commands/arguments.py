"""Arguments that several commands have, and what errors of the engine are called in flags."""

import argparse
import re
from collections.abc import Iterable
from typing import Any

from engine.errors import EngineError, OptionsError
from engine.options import decoding_options

OTHER_NAMES = {
    "beam_size": "--beam",
    "num_hypotheses": "--alternatives",
    "num_samples": "--alternatives",
    "no_repeat_ngram_size": "--no-repeat-ngram",
    "engine_cache": "--save",
}
"""Flags that are not named like their option."""


def add_model(parser: argparse.ArgumentParser) -> None:
    """Adds --bundle, --provider and --precision."""
    parser.add_argument(
        "--bundle", metavar="FOLDER", help="bundle to use, or the name of one that ships (see `info --bundles`)"
    )
    parser.add_argument(
        "--provider",
        default="auto",
        metavar="NAME",
        help="execution provider, or one each as encoder+decoder, such as cuda+cpu; default: auto",
    )
    parser.add_argument(
        "--precision", default="auto", metavar="NAME", help="precision of the graphs, such as fp32; default: auto"
    )


def add_json(parser: argparse.ArgumentParser) -> None:
    """Adds --json for a command that prints one record."""
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def given(arguments: argparse.Namespace, names: Iterable[str]) -> dict[str, Any]:
    """Returns those of the named options that were given; the Captioner has the defaults of the others."""
    return {name: value for name in names if (value := getattr(arguments, name)) is not None}


def flag_of(name: str) -> str:
    """Returns the flag for an option of the engine."""
    return OTHER_NAMES.get(name, f"--{name.replace('_', '-')}")


def in_flags(text: str) -> str:
    """Returns a text with the flags in place of the names that options have in Python."""
    names = {option.name for option in decoding_options() if "_" in option.name}  # others may be plain words
    known = "|".join(sorted(names | {"batch_size", "max_pixels", "engine_cache", "formats"}, key=len, reverse=True))
    return re.sub(rf"\b({known})\b", lambda name: flag_of(name[0]), text)


def explained(error: EngineError) -> str:
    """Returns what an error says, in the words of the command line."""
    if not (isinstance(error, OptionsError) and error.name):
        return str(error)
    name, must, rest = error.reason.partition(" must ")
    if name != error.name:
        return f"{flag_of(error.name)}: {in_flags(error.reason)}"
    rest, advises, advice = in_flags(rest).partition("; ")
    return f"{flag_of(name)}{must}{rest}, but it is {error.value!r}{advises}{advice}"
