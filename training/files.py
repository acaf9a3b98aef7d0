"""Files of commands: checking that outputs can be written, writing them atomically, reading JSON."""

import argparse
import json
import os
from pathlib import Path
from typing import Any


def check_outputs(parser: argparse.ArgumentParser, given: argparse.Namespace, *options: str) -> None:
    """Ends the program with a one-sentence error if one of these options names a file that cannot be written.

    options: as on the command line, such as "--results-out"; None values are skipped.
    """
    for option in options:
        path = getattr(given, option.removeprefix("--").replace("-", "_"))
        if path is not None and (path.is_dir() or not path.parent.is_dir()):
            parser.error(f"{option} {path} cannot be written: it must be a file in a folder that exists")


def write_atomically(path: Path, content: bytes) -> None:
    """Writes a file beside `path`, flushes it to the disk and renames it: readers see the old or the new file."""
    beside = path.with_name(f".{path.name}.new")  # a fixed name, so that the next write replaces what a kill left
    try:
        with beside.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def write_json(path: Path, value: object) -> None:
    """Writes a value as indented JSON, atomically."""
    write_atomically(path, (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode())


def read_json(path: Path, kind: type[Exception]) -> Any:
    """Returns a file's JSON value. Raises an error of the given kind that names the file."""
    try:
        return json.loads(path.read_bytes())
    except OSError as error:
        raise kind(f"{path} cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise kind(f"{path} is not valid JSON: {error}") from error
