"""`python -m engine warmup`: runs everything once, shows how long it took, and saves what a provider built."""

import argparse
import json
from collections.abc import Callable
from typing import Any

from engine.captioner import Captioner
from engine.commands.arguments import add_json, add_model, given
from engine.commands.parser import Parser
from engine.runtime.options import RuntimeOptions
from engine.warmup import Warmed, save_engines, warm_up

HEAD = ("batch", "decoding", "first call", "second call")


def add(commands: "argparse._SubParsersAction[Parser]") -> None:
    """Adds the command to the command line."""
    parser = commands.add_parser(
        "warmup",
        help="build a provider's engines in advance",
        description="Captions grey images until everything is built. With --save, engines that a provider built are "
        "saved, and later processes load them instead of building them, if bundle, options, versions and GPU are the "
        "same.",
        allow_abbrev=False,
    )
    parser.set_defaults(command=run, interrupted="nothing was saved")
    parser.add_argument("--batch-size", type=int, metavar="N", help="largest number of images that will run at once")
    parser.add_argument(
        "--save",
        nargs="?",
        const="",
        metavar="FOLDER",
        help="save engines in FOLDER, for RuntimeOptions(engine_cache=FOLDER); default: in the user's cache",
    )
    add_json(parser)
    add_model(parser)


def run(arguments: argparse.Namespace, captioner_factory: Callable[..., Captioner]) -> int:
    """Prints how long the first and second call took for each batch size and decoding, then what was saved."""
    captioner = captioner_factory(
        arguments.bundle,
        provider=arguments.provider,
        precision=arguments.precision,
        runtime=RuntimeOptions(engine_cache=arguments.save or None),
        **given(arguments, ("batch_size",)),
    )
    warmed = warm_up(captioner.model)
    saved = None if arguments.save is None else save_engines(captioner.model)
    if arguments.json:
        facts: dict[str, Any] = {"provider": captioner.provider, "precision": captioner.precision}
        calls = [
            {"batch": w.batch_size, "decoding": type(w.decoding).__name__, "first": w.first, "second": w.second}
            for w in warmed
        ]
        print(json.dumps({**facts, "calls": calls, "saved": saved and [str(path) for path in saved]}))
        return 0
    print(f"provider {captioner.provider}, precision {captioner.precision}")
    print("\n".join(_table(warmed)))
    if saved is not None and not saved:
        print(f"provider {captioner.provider} builds no engines: nothing to save")
    for path in saved or ():
        print(f"saved {path}")
    return 0


def _table(warmed: list[Warmed]) -> list[str]:
    rows = [HEAD] + [
        (str(w.batch_size), type(w.decoding).__name__.lower(), f"{w.first * 1e3:.1f} ms", f"{w.second * 1e3:.1f} ms")
        for w in warmed
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
