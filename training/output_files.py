"""Files that a command's options name for what it makes: whether they can be written. Writes nothing."""

import argparse


def check_outputs(parser: argparse.ArgumentParser, given: argparse.Namespace, *options: str) -> None:
    """Ends the program with one sentence where one of these options names a file that could not be written.

    options: as on the command line, such as "--results-out"; None is nowhere.
    """
    for option in options:
        path = getattr(given, option.removeprefix("--").replace("-", "_"))
        if path is not None and (path.is_dir() or not path.parent.is_dir()):
            parser.error(f"{option} {path} cannot be written: it must be a file in a folder that exists")
