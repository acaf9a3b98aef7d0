"""How the services' commands say what is wrong with a command line. Knows no command and no option."""

import argparse
import difflib
import re
from os.path import commonprefix
from typing import Any, NoReturn

from engine import EngineError, OptionsError

REWORDED = {  # what argparse says, and what follows the name of a flag here
    r"^invalid int value: (.*)$": r"must be a whole number, but it is \1",
    r"^invalid float value: (.*)$": r"must be a number, but it is \1",
    r"^invalid choice: (.*) \(choose from (.*)\)$": r"must be one of \2, but it is \1",
    r"^not allowed with argument (.*)$": r"cannot be used with \1",
    r"^expected (one|at least one) argument$": "needs a value",
}


class Parser(argparse.ArgumentParser):
    """Answers wrong usage with one sentence and exit code 2, where argparse prints every flag there is."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.exit_on_error = False

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Reads the arguments; ends the program for unknown ones too."""
        try:
            given, unknown = super().parse_known_args(args, namespace)
        except argparse.ArgumentError as error:
            said = error.message
            for pattern, plain in REWORDED.items():
                said = re.sub(pattern, plain, said)
            self.error(f"{error.argument_name} {said}" if error.argument_name else said)
        if unknown:
            flag = next((word.partition("=")[0] for word in unknown if word.startswith("-")), None)
            known = [name for name in self._option_string_actions if name.startswith("--")]
            near = [name for name in known if flag and name.startswith(flag)]
            near = near or difflib.get_close_matches(flag or "", known)
            # of those that are near, the one that begins alike for longest: ends are what people forget
            begins = {name: len(commonprefix((name, flag or ""))) for name in near}  # noqa: RUF071 - by character
            hint = f" (did you mean {max(begins, key=begins.__getitem__)}?)" if begins else ""
            self.error(f"there is no flag {flag}{hint}" if flag else f"{unknown[0]!r} was not expected")
        return given, unknown

    def error(self, message: str) -> NoReturn:
        """Ends the program."""
        self.exit(2, f"error: {message}; see `{self.prog} --help`\n")


def explained(error: EngineError | OSError) -> str:
    """Returns what an error says, with the flags in place of the names that options have in Python."""
    if not isinstance(error, OptionsError) or not error.name:
        return str(error)
    flag = f"--{error.name.replace('_', '-')}"
    reason = re.sub(r"\b[a-z]+(_[a-z]+)+\b", lambda word: f"--{word[0].replace('_', '-')}", error.reason)
    name, must, rest = reason.partition(" must ")
    if name not in (flag, error.name):
        return f"{flag}: {reason}"
    rest, advises, advice = rest.partition("; ")
    return f"{flag}{must}{rest}, but it is {error.value!r}{advises}{advice}"
