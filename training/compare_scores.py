"""The comparison command: python -m training.compare_scores BEFORE.json AFTER.json.

Reports which metrics of two runs on the same images differ by more than chance, and on which images they differ most.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from engine.commands.parser import Parser, existing_file, whole
from training.files import check_outputs, write_json
from training.metrics.bootstrap import LEVEL, RESAMPLES, Difference, compare
from training.metrics.counts import METRICS
from training.metrics.java import MetricsError
from training.metrics.score_file import ScoreFile, in_order_of, read_scores
from training.outcome import outcome


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns 0, 1 for a named error, 130 after Ctrl-C."""
    parser = command_line()
    given = parser.parse_args(arguments)
    check_outputs(parser, given, "--output")
    return outcome(lambda: _run(given), MetricsError)


def _run(given: argparse.Namespace) -> None:
    before, after = read_scores(given.before), read_scores(given.after)
    odd = sorted(set(before.counts.images) ^ set(after.counts.images))
    if odd:
        raise MetricsError(
            f"both files must cover the same images, but {len(odd):,} are in only one of them: {', '.join(odd[:5])}"
        )
    if before.tokeniser != after.tokeniser:
        raise MetricsError(
            f"both files must use the same tokeniser, but {before.name} has the {before.tokeniser} "
            f"and {after.name} has {after.tokeniser}: score both with Java or both without"
        )
    images = before.counts.images
    second = in_order_of(images, after.counts)
    differences = compare(before.counts, second, resamples=given.resamples, seed=given.seed)
    if given.by not in differences:
        raise MetricsError(f"--by {given.by} is not in both files: they have {', '.join(differences)}")
    for kind, said in (("data", "data"), ("split", "list")):
        if (first := getattr(before, kind)) != (other := getattr(after, kind)):
            print(f"note: the {said} differs: {first} and {other}", file=sys.stderr)
    first_scores, second_scores = before.counts.per_image()[given.by], second.per_image()[given.by]
    changes = second_scores - first_scores  # (images,)
    print(f"A: {before.name}\nB: {after.name}\n{len(images):,} images, {given.resamples:,} resamples\n")
    print(table(differences))
    better, worse = int((changes > 0).sum()), int((changes < 0).sum())
    print(f"\n{given.by}: {better:,} images better in B, {worse:,} worse, {len(images) - better - worse:,} equal")
    order = sorted(range(len(images)), key=lambda place: (-abs(changes[place]), images[place]))
    farthest = [images[place] for place in order[: given.show] if changes[place]]
    for place in order[: len(farthest)]:
        print(_pair(images[place], (first_scores[place], second_scores[place]), (before, after)))
    if given.output is not None:
        record = {
            "before": before.name,
            "after": after.name,
            "images": len(images),
            "bootstrap": {"resamples": given.resamples, "level": LEVEL, "seed": given.seed},
            "differences": {name: _record(found) for name, found in differences.items()},
            "farthest": farthest,
        }
        write_json(given.output, record)
        print(f"written to {given.output}")


def table(differences: dict[str, Difference]) -> str:
    """Returns differences as text: B minus A, its 95 % interval, the two-sided p."""
    lines = [f"{'':8} {'A':>8} {'B':>8} {'B - A':>9}   {'95% interval':^20} {'p':>9}"]
    for name, found in differences.items():
        interval = f"{found.interval.low:+.4f} to {found.interval.high:+.4f}"
        p = "< 0.001" if found.p < 0.001 else f"{found.p:.3f}"
        lines.append(f"{name:8} {found.first:8.4f} {found.second:8.4f} {found.change:+9.4f}   {interval:^20} {p:>9}")
    return "\n".join(lines)


def _record(found: Difference) -> dict[str, Any]:
    interval = [found.interval.low, found.interval.high]
    return {"before": found.first, "after": found.second, "change": found.change, "interval": interval, "p": found.p}


def _pair(image: str, scores: tuple[float, float], files: tuple[ScoreFile, ScoreFile]) -> str:
    runs = zip("AB", scores, files, strict=True)
    return "\n".join([image, *(f"  {side} {score:6.3f}  {file.captions[image]}" for side, score, file in runs)])


def command_line() -> Parser:
    """Returns the parser of the command."""
    parser = Parser(
        prog="python -m training.compare_scores",
        description="Compares two runs image by image: paired bootstrap of every metric, the images that differ most.",
    )
    scores = existing_file("scores.json of training.evaluate")
    parser.add_argument("before", type=scores, help="scores.json of run A, from training.evaluate")
    parser.add_argument("after", type=scores, help="scores.json of run B, on the same images")
    parser.add_argument(
        "--resamples", type=whole(1), default=RESAMPLES, help=f"number of bootstrap resamples (default: {RESAMPLES:,})"
    )
    parser.add_argument("--seed", type=whole(0), default=0, help="seed of the resamples (default: 0)")
    parser.add_argument("--by", choices=METRICS, default="CIDEr", help="metric that ranks images (default: CIDEr)")
    parser.add_argument("--show", type=whole(0), default=10, help="how many images to show (default: 10)")
    parser.add_argument("--output", type=Path, help="JSON file for the comparison")
    return parser


if __name__ == "__main__":
    sys.exit(main())
