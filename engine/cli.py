"""The command line: `python -m engine COMMAND`. Owns the list of commands and their exit codes."""

import io
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress

from engine.captioner import Captioner
from engine.commands import caption, index, info, search, tune, warmup
from engine.commands.arguments import explained
from engine.commands.parser import Parser, os_reason
from engine.errors import EngineError

COMMANDS = (caption.add, index.add, search.add, info.add, tune.add, warmup.add)
CLOSED_PIPE, INTERRUPTED = 141, 130  # 128 + the signal, as in shells


def main(argv: Sequence[str] | None = None, captioner_factory: Callable[..., Captioner] = Captioner) -> int:
    """Runs a command and returns its exit code.

    0: success; 1: some images failed; 2: wrong usage, or an EngineError, printed as one sentence; 130: interrupted.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # the terminal may not be able to show a path
    arguments = _parser().parse_args(argv)
    try:
        code: int = arguments.command(arguments, captioner_factory)
        print(end="", flush=True)
    except EngineError as error:
        print(f"error: {explained(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"interrupted: {arguments.interrupted}", file=sys.stderr)
        return INTERRUPTED
    except OSError as error:  # standard output is closed or full; the interpreter flushes it once more as it ends
        with suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):
            return CLOSED_PIPE
        print(f"error: {os_reason(error)}", file=sys.stderr)
        return 2
    return code


def _parser() -> Parser:
    parser = Parser(
        prog="python -m engine",
        description="Photographs in, English sentences out.",
        epilog="`python -m engine COMMAND --help` lists a command's options.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND", title="commands")
    for add in COMMANDS:
        add(commands)
    return parser
