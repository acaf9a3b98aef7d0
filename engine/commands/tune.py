"""`python -m engine tune`: measures, prints a table, and saves what "auto" uses from then on."""

import argparse
import datetime
import json
import sys
from collections.abc import Callable
from typing import Any

from engine.autotune import cache_file
from engine.autotune.measure import BUILDERS, DECODINGS, NO_TIME, Budget, Entry, Tuning, Way, tune, ways
from engine.bundle.bundle import Bundle
from engine.cache import forget
from engine.captioner import Captioner
from engine.commands.arguments import add_json
from engine.commands.parser import Parser, number
from engine.commands.progress import Progress
from engine.errors import EngineError
from engine.runtime.options import RuntimeOptions
from engine.runtime.placement import Placement
from engine.runtime.providers import available_providers
from engine.selfcheck import verify

HEAD = ("provider", "precision", "threads", "one image", "speed-up", "a batch of {}", "speed-up", "")


def add(commands: "argparse._SubParsersAction[Parser]") -> None:
    """Adds the command to the command line."""
    parser = commands.add_parser(
        "tune",
        help="measure what is fastest on this machine, so that auto uses it",
        description="Times each provider in each precision on several numbers of threads, from JPEG bytes to "
        "sentences, and saves the result in the user's cache folder (CAPTIONING_ENGINE_CACHE names another). "
        "Run nothing else meanwhile.",
        allow_abbrev=False,
    )
    parser.set_defaults(command=run, interrupted="nothing was saved; earlier results are unchanged")
    parser.add_argument("--bundle", metavar="FOLDER", help="bundle to use; default: the one that ships")
    parser.add_argument(
        "--provider",
        type=lambda names: names.split(","),
        metavar="NAME[,NAME]",
        help=f"providers to try; default: all available ones but {' and '.join(BUILDERS)}, which take minutes to start",
    )
    seconds = number(0, above=True)
    parser.add_argument("--seconds", type=seconds, default=50, metavar="S", help="time limit in seconds; default: 50")
    parser.add_argument("--clear", action="store_true", help="delete the saved results and measure nothing")
    add_json(parser)


def run(arguments: argparse.Namespace, captioner_factory: Callable[..., Captioner]) -> int:
    """Prints what was measured, with the fastest marked, and where it is saved."""
    bundle = Bundle.load(arguments.bundle)
    if arguments.clear:
        count = sum(forget(kind, bundle.path) for kind in (cache_file.KIND, verify.KIND))
        print(json.dumps({"forgotten": count}) if arguments.json else f"saved results deleted: {count}")
        return 0
    for name in arguments.provider or ():
        Placement.of(name)
    tuning = _tune(bundle, arguments, captioner_factory)
    date = datetime.date.today().isoformat()
    path, failed = None, None
    try:
        path = cache_file.save(bundle, _to_keep(bundle, tuning, date))
    except EngineError as error:  # show the results first
        failed = error
    if arguments.json:
        print(json.dumps({"bundle": str(bundle.path), "date": date, **_facts(tuning), "kept": path and str(path)}))
    else:
        print("\n".join(_table(tuning)))
        left_out = [name for name in BUILDERS if name in available_providers() and not arguments.provider]
        if left_out:
            names = ", ".join(left_out)
            print(f"not tried, since starting takes minutes: {names} (--provider {left_out[0]} tries it)")
        first = tuning.entries[0].way
        print(f"Milliseconds from JPEG bytes to a sentence, mean of greedy and beam; speed-up over {first}.")
        print(f"Measured in {tuning.seconds:.0f} seconds" + (f" and saved in {path}" if path else ""))
    if failed is not None:
        raise failed
    return 0


def _to_keep(bundle: Bundle, tuning: Tuning, date: str) -> cache_file.Measurements:
    """Returns what to save: this tuning, and what an earlier one measured of combinations that this one did not try.

    Raises EngineError if there was no time for one that "auto" could choose untuned: incomplete results mislead it.
    """
    lacking = [str(entry.way) for entry in tuning.entries if entry.error == NO_TIME and not entry.way.threads]
    if lacking:
        raise EngineError(f"nothing is saved, since no time was left for {', '.join(lacking)}: raise --seconds")
    ways = {entry.way for entry in tuning.entries}
    earlier = cache_file.load(bundle) or cache_file.Measurements(date, ())
    kept = [timing for timing in earlier.timings if Way(timing.provider, timing.precision, timing.threads) not in ways]
    tried = dict.fromkeys((*earlier.tried, *(way.provider for way in ways)))
    return cache_file.Measurements(
        date, (*kept, *(entry.timing(tuning.images) for entry in tuning.measured)), tuple(sorted(tried))
    )


def _tune(bundle: Bundle, arguments: argparse.Namespace, captioner_factory: Callable[..., Captioner]) -> Tuning:
    progress = Progress(int(arguments.seconds), sys.stderr, "{done} of at most {total} seconds")

    def start(way: Way) -> Captioner:
        runtime = RuntimeOptions(threads=way.threads)
        return captioner_factory(bundle.path, provider=way.provider, precision=way.precision, runtime=runtime)

    def show(seconds: float) -> None:
        progress.clear()
        progress.show(int(seconds))

    try:
        return tune(bundle, ways(bundle, arguments.provider or ()), Budget(arguments.seconds, start, show))
    finally:
        progress.clear()


def _table(tuning: Tuning) -> list[str]:
    """Returns the lines of the table: the fastest in batches first, those that were not measured last."""
    first = tuning.entries[0]
    rows = [tuple(cell.format(tuning.images) for cell in HEAD)]
    for entry in sorted(tuning.measured, key=lambda entry: entry.mean(tuning.images)):
        cells = (
            f"{cell}"
            for images in (1, tuning.images)
            for cell in (f"{entry.mean(images) * 1e3:.1f} ms", f"{first.mean(images) / entry.mean(images):.2f}x")
        )
        rows.append((*_name(entry.way), *cells, _mark(entry, tuning)))
    rows += [(*_name(entry.way), "", "", "", "", f"left out: {entry.error}") for entry in tuning.entries if entry.error]
    widths = [max(map(len, column)) for column in zip(*(row[:-1] for row in rows), strict=True)]
    lines = [
        "  ".join([*map(str.ljust, row[:3], widths), *map(str.rjust, row[3:-1], widths[3:]), row[-1]]) for row in rows
    ]
    return [line.rstrip() for line in lines]


def _name(way: Way) -> tuple[str, str, str]:
    return way.provider, way.precision, str(way.threads or "default")


def _mark(entry: Entry, tuning: Tuning) -> str:
    if entry.refused:
        return f"not for auto: {entry.refused}"
    best = [what for images, what in ((1, "one image"), (tuning.images, "batches")) if entry is tuning.best(images)]
    return f"<- auto for {' and '.join(best)}" if best else ""


def _facts(tuning: Tuning) -> dict[str, Any]:
    def describe(entry: Entry) -> dict[str, Any]:
        way = {"provider": entry.way.provider, "precision": entry.way.precision, "threads": entry.way.threads}
        if entry.error:
            return {**way, "left_out": entry.error}
        seconds = {
            f"{type(decoding).__name__.lower()}, {images} at once": entry.seconds(images, i)
            for images in (1, tuning.images)
            for i, decoding in enumerate(DECODINGS)
        }
        return {**way, "seconds_an_image": seconds, "not_for_auto": entry.refused or None}

    return {
        "seconds": tuning.seconds,
        "ways": [describe(entry) for entry in tuning.entries],
        "one_image": describe(tuning.best(1)),
        "batches": describe(tuning.best(tuning.images)),
    }
