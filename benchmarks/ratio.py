"""Engine and PyTorch in turns, for ratios that a noisy machine does not bend: `python -m benchmarks.ratio`.

Prints a Markdown table. A turn of one side is followed at once by a turn of the other, and each pair of turns gives
one ratio, so that whatever slows the machine for longer than a turn slows both.
"""

import argparse
import importlib.metadata
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from benchmarks.pairs import BATCHES, WORKS, Pair, Sides

TURN = 0.2
"""Least seconds of a turn, in which a quick piece of work is done many times."""
FEWEST_TURNS = 5
PACKAGES = ("torch", "onnxruntime", "numpy", "Pillow")


@dataclass(frozen=True, slots=True)
class Row:
    """What was measured of one piece of work: milliseconds a call (medians), and PyTorch's time over the engine's.

    ratios are the first quartile, the median and the third quartile of the turns' ratios.
    """

    work: str
    batch: int
    engine_ms: float
    pytorch_ms: float
    ratios: tuple[float, float, float]
    turns: int


def measure(pair: Pair, seconds: float) -> tuple[list[float], list[float]]:
    """Returns the seconds of a call in each turn, of the engine and of PyTorch."""
    sides = (pair.engine, pair.pytorch)
    calls = [max(1, round(TURN / _turn(side, 2))) for side in sides]
    times: tuple[list[float], list[float]] = ([], [])
    end = time.perf_counter() + seconds
    while len(times[0]) < FEWEST_TURNS or time.perf_counter() < end:
        for kept, side, count in zip(times, sides, calls, strict=True):
            kept.append(_turn(side, count))
    return times


def _turn(side: Callable[[], object], calls: int) -> float:
    """Returns the mean seconds of some calls, after one that is not timed: the other side's threads still spin."""
    side()
    start = time.perf_counter()
    for _ in range(calls):
        side()
    return (time.perf_counter() - start) / calls


def row(work: str, batch: int, engine: Sequence[float], pytorch: Sequence[float]) -> Row:
    """Sums up the turns."""
    ratios = [theirs / ours for ours, theirs in zip(engine, pytorch, strict=True)]
    low, middle, high = statistics.quantiles(ratios, n=4)
    milliseconds = [1000 * statistics.median(times) for times in (engine, pytorch)]
    return Row(work, batch, milliseconds[0], milliseconds[1], (low, middle, high), len(ratios))


def line(row: Row) -> str:
    """Returns a row of the Markdown table."""
    low, middle, high = row.ratios
    times = f"{row.engine_ms:.3g} ms | {row.pytorch_ms:.3g} ms"
    return f"| {row.work} | {row.batch} | {times} | **{middle:.2f}x** | {low:.2f} to {high:.2f} |"


def machine() -> str:
    """Returns one line on what the numbers were taken with."""
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in PACKAGES)
    return f"{_processor()}, {os.cpu_count()} cores, PyTorch on {torch.get_num_threads()} threads; {versions}"


def _processor() -> str:
    information = Path("/proc/cpuinfo")
    names = information.read_text().splitlines() if information.is_file() else []
    return next((name.split(":")[1].strip() for name in names if name.startswith("model name")), platform.machine())


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ratio", description=__doc__.splitlines()[0])
    parser.add_argument("--bundle", type=Path, help="the bundle to measure; the one that ships where left out")
    parser.add_argument("--work", nargs="+", choices=WORKS, default=list(WORKS), metavar="WORK", help=", ".join(WORKS))
    parser.add_argument(
        "--batch", nargs="+", type=int, default=BATCHES, choices=range(1, max(BATCHES) + 1), metavar="N"
    )
    parser.add_argument("--seconds", type=float, default=6, help="for each line of the table (default: 6)")
    parser.add_argument("--threads", type=int, default=0, help="for either side (default: as many as each takes)")
    parser.add_argument("--json", type=Path, help="write the numbers to this file, too")
    options = parser.parse_args(arguments)
    sides = Sides(options.bundle, options.threads)
    name, chunk = sides.captioner.bundle.manifest.name, sides.baseline.chunk
    setting = f"{machine()}; PyTorch encodes {chunk} images at once; bundle {name}"
    print(setting, file=sys.stderr)
    print("| work | batch | engine | PyTorch eager | speed-up | middle half |\n|---|---|---|---|---|---|")
    rows = []
    for work in options.work:
        for batch in options.batch:
            rows.append(row(work, batch, *measure(sides.pair(work, batch), options.seconds)))
            print(line(rows[-1]), flush=True)
    if options.json:
        kept = {"setting": setting, "rows": [asdict(row) for row in rows]}
        options.json.write_text(json.dumps(kept, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
