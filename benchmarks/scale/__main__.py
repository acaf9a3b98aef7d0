"""Measures how speed scales: `python -m benchmarks.scale --charts docs`.

Throughput by images, threads, callers, beam size and vocabulary, for each precision of the bundle. Each point is
measured in a separate process, and once per round, so that a slow minute affects a round and not one curve.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from benchmarks.photographs import photographs
from benchmarks.scale.charts import draw_chart, explain
from benchmarks.scale.points import BATCH, Point, Task
from benchmarks.scale.vocabulary import write_other_vocabulary
from engine import Captioner
from engine.bundle.bundle import Bundle
from engine.runtime.options import cores

ROOT = Path(__file__).parents[2]


CURVES: dict[str, tuple[int, ...]] = {
    "images": (1, 2, 4, 8, 16, 32, 64, 128, 256, 1_000, 10_000),
    "threads": tuple(sorted({1, 2, 4, cores(), 2 * cores(), 4 * cores()})),
    "callers": (1, 2, 3, 4, 6, 8, 12, 16),
    "beam": tuple(range(1, 11)),
    "vocabulary": (1_000, 2_500, 5_000, 10_000, 20_000, 50_000),
}
"""Where each curve is measured."""
SHORT = 2
SHORT_BATCH = 4
"""Points of each curve and images of a batch where it has to be quick."""


def prepare(bundle: Bundle, batch: int, vocabularies: Sequence[int], folder: Path) -> None:
    """Writes what the points work on: photographs, their features, and the bundles of other vocabularies."""
    files = photographs(2 * batch)
    for i, file in enumerate(files):
        (folder / f"{i:03d}.jpg").write_bytes(file)
    np.save(folder / "features.npy", Captioner(bundle.path, provider="cpu", precision="fp32").encode(files))
    for size in vocabularies:
        write_other_vocabulary(bundle, size, folder / f"vocabulary-{size}")


def measure(tasks: Sequence[Task], rounds: int) -> list[Point]:
    """Returns the points of all tasks, each the median of its rounds."""
    found: dict[tuple[str, str, str, int], list[Point]] = {}
    for number in range(rounds):
        for done, task in enumerate(tasks, start=1):
            print(f"round {number + 1} of {rounds}, point {done} of {len(tasks)}", end="\r", file=sys.stderr)
            for point in _points(task):
                found.setdefault((point.curve, point.line, point.precision, point.x), []).append(point)
    print(file=sys.stderr)
    return [
        replace(
            points[0],
            rate=statistics.median(point.rate for point in points),
            p50=statistics.median(point.p50 for point in points),
            p99=statistics.median(point.p99 for point in points),
            peak=max(point.peak for point in points),
        )
        for points in found.values()
    ]


def _points(task: Task) -> Iterator[Point]:
    command = [sys.executable, "-m", "benchmarks.scale.points", json.dumps(asdict(task))]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{task} failed: {done.stderr}")
    yield from (Point(**fields) for fields in json.loads(done.stdout))


def table(points: Sequence[Point]) -> str:
    """Returns a curve's points as a Markdown table."""
    lines = [f"| {points[0].curve} | work | precision | images a second | ms, p50 | ms, p99 | peak MB |"]
    lines.append("|---|---|---|---|---|---|---|")
    for point in sorted(points, key=lambda point: (point.precision, point.line, point.x)):
        times = f"{point.rate:.4g} | {point.p50:.4g} | {point.p99:.4g} | {point.peak:.0f}"
        lines.append(f"| {point.x:,} | {point.line} | {point.precision} | {times} |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale", description=__doc__.splitlines()[0])
    parser.add_argument("--bundle", type=Path, help="the bundle to measure; the one that ships where left out")
    parser.add_argument(
        "--curve", nargs="+", choices=CURVES, default=list(CURVES), metavar="CURVE", help=", ".join(CURVES)
    )
    parser.add_argument("--precision", nargs="+", help="which of the bundle's precisions (default: all)")
    parser.add_argument("--seconds", type=float, default=1.0, help="for each line of a point and round (default: 1)")
    parser.add_argument("--rounds", type=int, default=3, help="of which each point is the median (default: 3)")
    parser.add_argument("--short", action="store_true", help="only the first points of each curve, on few images")
    parser.add_argument("--json", type=Path, help="write the points to this file, too")
    parser.add_argument("--charts", type=Path, help="write a PNG of each curve to this folder")
    options = parser.parse_args(arguments)
    if options.rounds < 1 or options.seconds <= 0:
        parser.error("--rounds must be at least 1 and --seconds above 0")
    bundle = Bundle.load(options.bundle)
    precisions = options.precision or bundle.precisions
    if unknown := set(precisions) - set(bundle.precisions):
        parser.error(f"the bundle holds {', '.join(bundle.precisions)}, not {', '.join(sorted(unknown))}")
    where = {curve: CURVES[curve][: SHORT if options.short else None] for curve in options.curve}
    batch = SHORT_BATCH if options.short else BATCH
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare(bundle, batch, where.get("vocabulary", ()), folder)
        tasks = [
            Task(
                curve=curve,
                x=x,
                precision=precision,
                bundle=str(folder / f"vocabulary-{x}" if curve == "vocabulary" else bundle.path.resolve()),
                folder=name,
                seconds=options.seconds,
                batch=batch,
            )
            for curve, points in where.items()
            for x in points
            for precision in precisions
        ]
        measured = measure(tasks, options.rounds)
    for curve in where:
        of_curve = [point for point in measured if point.curve == curve]
        said = explain(curve, of_curve, cores())
        print(f"\n{table(of_curve)}\n\n{said}", flush=True)
        if options.charts:
            options.charts.mkdir(parents=True, exist_ok=True)
            draw_chart(curve, of_curve, said, options.charts / f"scale-{curve}.png")
    if options.json:
        kept = {"bundle": bundle.manifest.name, "cores": cores(), "points": [asdict(point) for point in measured]}
        options.json.write_text(json.dumps(kept, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
