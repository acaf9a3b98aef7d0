"""How commands read a command line, and how they say what is wrong with it. Knows no command and no option."""

import argparse
import difflib
import re
import sys
from collections.abc import Callable
from functools import partial
from math import isfinite
from os.path import commonprefix
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn, TypeVar

from engine.errors import EngineError

REWORDED = {  # what argparse says, and what follows the name of a flag here
    r"^invalid choice: (.*) \(choose from (.*)\)$": r"must be one of \2, but it is \1",
    r"^not allowed with argument (.*)$": r"cannot be used with \1",
    r"^expected (one|at least one) argument$": "needs a value",
}
Number = TypeVar("Number", int, float)


class Parser(argparse.ArgumentParser):
    """Answers wrong usage with one sentence and exit code 2, where argparse prints every flag there is."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.exit_on_error = False
        self.register("type", int, whole())
        self.register("type", float, number())

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Reads the arguments. Ends the program for unknown ones too, so that it is their command that says so."""
        try:
            given, unknown = super().parse_known_args(args, namespace)
        except argparse.ArgumentError as error:
            self.error(_explained(error))
        if unknown:
            self.error(self._not_known(unknown))
        return given, unknown

    def error(self, message: str) -> NoReturn:
        """Ends the program."""
        self.exit(2, f"error: {message}; see `{self.prog} --help`\n")

    def _not_known(self, words: list[str]) -> str:
        flag = next((word.partition("=")[0] for word in words if word.startswith("-")), None)
        if flag is None:
            return f"{words[0]!r} was not expected"
        known = [name for name in self._option_string_actions if name.startswith("--")]
        near = [name for name in known if name.startswith(flag)] or difflib.get_close_matches(flag, known)
        # of those that are near, the one that begins alike for longest: ends are what people forget
        best = max(near, key=lambda name: len(commonprefix((name, flag))), default=None)  # noqa: RUF071 - by character
        return f"there is no flag {flag}" + (f" (did you mean {best}?)" if best else "")


def _explained(error: argparse.ArgumentError) -> str:
    said = error.message
    for pattern, plain in REWORDED.items():
        said = re.sub(pattern, plain, said)
    if not error.argument_name:
        return said
    return f"{error.argument_name}{'' if said.startswith(('must ', 'cannot ', 'needs ')) else ':'} {said}"


def whole(least: int | None = None, most: int | None = None) -> Callable[[str], int]:
    """Returns a type of argument: a whole number within these bounds."""
    return partial(_number, int, "a whole number", least, most, False)


def number(least: float | None = None, most: float | None = None, *, above: bool = False) -> Callable[[str], float]:
    """Returns a type of argument: a number within these bounds; above: `least` itself is too little."""
    return partial(_number, float, "a number", least, most, above)


def existing_file(what: str) -> Callable[[str], Path]:
    """Returns a type of argument: the path of a file that exists. what: what it has to be, for the error."""
    return partial(_existing, what, "file", lambda path: path.exists() and not path.is_dir())  # it may be a pipe


def existing_folder(what: str) -> Callable[[str], Path]:
    """Returns a type of argument: the path of a folder that exists. what: what it has to be, for the error."""
    return partial(_existing, what, "folder", Path.is_dir)


def os_reason(error: OSError) -> str:
    """Returns what an error of the system says, in words and without its number."""
    why = error.strerror or str(error)
    return f"{error.filename}: {why}" if error.filename else why


def explain_missing(extras: str) -> None:
    """Lets a command that is about to start end with one sentence where a package is missing, instead of a trace.

    extras: the extras of this project to install. Errors of the engine become one sentence too.
    """

    def tell(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        package = (error.name or ".") if isinstance(error, ModuleNotFoundError) else "."
        if "." not in package:  # a missing part of a package is a bug
            how = f"run python -m pip install '.[{extras}]' in a checkout"
            print(f"error: the package {package} is not installed: {how}", file=sys.stderr)
        elif isinstance(error, EngineError):
            print(f"error: {error}", file=sys.stderr)
        else:
            sys.__excepthook__(kind, error, trace)

    sys.excepthook = tell


def _number(
    kind: Callable[[str], Number], what: str, least: Number | None, most: Number | None, above: bool, text: str
) -> Number:
    try:
        value = kind(text)
        finite = isfinite(value)
    except (ValueError, OverflowError):
        finite = False
    if not finite:
        raise argparse.ArgumentTypeError(f"must be {what}, but it is {text!r}")
    low = least is None or (value > least if above else value >= least)
    if not (low and (most is None or value <= most)):
        if most is None:
            bounds = f"above {least}" if above else f"at least {least}"
        else:
            bounds = f"above {least} and at most {most:,}" if above else f"from {least} to {most:,}"
        raise argparse.ArgumentTypeError(f"must be {bounds}, but it is {text}")
    return value


def _existing(what: str, kind: str, is_one: Callable[[Path], bool], text: str) -> Path:
    path = Path(text)
    try:
        if is_one(path):
            return path
        there = f"{text} is no {kind}" if path.exists() else f"there is no {kind} {text}"
    except OSError as error:  # a folder on the way may not be looked into
        there = os_reason(error)
    raise argparse.ArgumentTypeError(f"must be {what}, but {there}")
