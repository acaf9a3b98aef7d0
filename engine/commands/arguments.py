"""Arguments that several commands have: the bundle, where and in which precision it runs, and output as JSON."""

import argparse
from collections.abc import Iterable
from typing import Any


def add_model(parser: argparse.ArgumentParser) -> None:
    """Adds --bundle, --provider and --precision."""
    parser.add_argument("--bundle", metavar="FOLDER", help="bundle to use; default: the one that ships")
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
