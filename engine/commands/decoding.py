"""The arguments for decoding, made from the engine's options. Knows no images and no output."""

import argparse
from typing import Any

from engine.commands.arguments import flag_of
from engine.errors import OptionsError
from engine.options import Beam, Decoding, DecodingOption, Greedy, Sample, decoding_options

NEEDED: dict[type, str] = {Greedy: "--greedy", Beam: "beam search", Sample: "--sample"}
READERS: dict[type, dict[str, Any]] = {
    int: {"type": int, "metavar": "N"},
    float: {"type": float, "metavar": "X"},
    str: {"metavar": "TEXT"},
    tuple: {
        "type": lambda text: [word for word in text.split(",") if word],
        "action": "extend",
        "metavar": "WORD[,WORD]",
    },
}


def add_decoding(parser: argparse.ArgumentParser) -> None:
    """Adds --greedy, --sample and a flag for each option."""
    group = parser.add_argument_group("how words are chosen", "Default: beam search with the bundle's settings.")
    ways = group.add_mutually_exclusive_group()
    ways.add_argument("--greedy", action="store_true", help="take the likeliest word at each step: the fastest way")
    ways.add_argument("--sample", action="store_true", help="draw words at random")
    for flag, options in decoding_flags().items():
        target = ways if flag == "--beam" else group  # so that it is refused beside another way
        option = options[0]
        read = {"choices": option.choices} if option.choices else READERS[option.kind]
        target.add_argument(flag, dest=_destination(flag), help=_help(options), **read)


def decoding_of(arguments: argparse.Namespace) -> Decoding:
    """Returns the decoding that the arguments ask for. Raises OptionsError."""
    way: type[Decoding] = Sample if arguments.sample else Greedy if arguments.greedy else Beam
    given: dict[str, Any] = {}
    for flag, options in decoding_flags().items():
        if (value := getattr(arguments, _destination(flag))) is None:
            continue
        fitting = [option for option in options if way in option.ways]
        if not fitting:
            needed = [each for option in options for each in option.ways]
            leave = f": leave out {NEEDED[way]}" if Beam in needed else ""
            raise OptionsError(f"{flag} needs {' or '.join(NEEDED[each] for each in needed)}{leave}")
        given[fitting[0].name] = value
    return way(**given)


def decoding_flags() -> dict[str, list[DecodingOption]]:
    """Returns each flag with its options, in their order: --alternatives is one option of Beam and one of Sample."""
    flags: dict[str, list[DecodingOption]] = {}
    for option in decoding_options():
        flags.setdefault(flag_of(option.name), []).append(option)
    return flags


def _destination(flag: str) -> str:
    return flag.removeprefix("--").replace("-", "_")


def _help(options: list[DecodingOption]) -> str:
    if len(options[0].ways) == len(NEEDED):
        return options[0].help
    return "; ".join(f"with {' or '.join(NEEDED[way] for way in each.ways)}: {each.help}" for each in options)
