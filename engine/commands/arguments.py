"""The arguments that commands share: which model, on what, in which precision; output as JSON."""

import argparse
from collections.abc import Iterable
from typing import Any


def add_model(parser: argparse.ArgumentParser) -> None:
    """Adds --bundle, --provider and --precision."""
    parser.add_argument("--bundle", metavar="FOLDER", help="the model to use; the one that ships if left out")
    parser.add_argument(
        "--provider",
        default="auto",
        metavar="NAME",
        help="what to run on, or encoder+decoder such as cuda+cpu; auto is the default",
    )
    parser.add_argument("--precision", default="auto", metavar="NAME", help="auto is the default")


def add_json(parser: argparse.ArgumentParser) -> None:
    """Adds --json for a command that prints one record."""
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def given(arguments: argparse.Namespace, names: Iterable[str]) -> dict[str, Any]:
    """Returns the named options that were given; the others' defaults are not the command line's business."""
    return {name: value for name in names if (value := getattr(arguments, name)) is not None}
