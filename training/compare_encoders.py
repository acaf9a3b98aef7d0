"""Compares the cost of encoders: python -m training.compare_encoders efficientnet_lite0 efficientnet_lite2 ….

Times each in fp32 on ONNX Runtime's CPU provider, as in the engine, and prints a Markdown table. How good an encoder is
shows only in training: with --scores the table includes scores of runs that differ only in the encoder.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from training.files import write_json
from training.models.compiled import session, trace
from training.models.encoders import EncoderError, load_encoder
from training.outcome import outcome

MEGABYTE = 1_000_000
SCORES = ("BLEU-4", "CIDEr")


@dataclass(frozen=True, slots=True)
class Cost:
    """The cost of an encoder. Times are medians over batches, in milliseconds per image, by number of threads."""

    encoder: str
    image: tuple[int, int]  # height, width
    features: int
    graph_bytes: int
    milliseconds: Mapping[int, float]


def measure(name: str, weights: str, threads: Sequence[int], batch: int, repeats: int) -> Cost:
    """Traces and times an encoder on random pixels. Raises EncoderError if it cannot be loaded."""
    encoder = load_encoder(name, weights)
    shape = (batch, encoder.image.height, encoder.image.width, 3)
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    model = trace(encoder, pixels)
    times = {}
    for count in threads:
        run = session(model, count)
        run(pixels)
        seconds = []
        for _ in range(repeats):
            began = time.perf_counter()
            run(pixels)
            seconds.append(time.perf_counter() - began)
        times[count] = round(1000 * statistics.median(seconds) / batch, 3)
    return Cost(name, shape[1:3], encoder.feature_size, len(model), times)


def table(costs: Sequence[Cost], scores: Mapping[str, Mapping[str, Any]]) -> str:
    """Returns costs as a Markdown table, with scores where given."""
    threads = list(costs[0].milliseconds)
    titles = ["encoder", "pixels", "features", "MB", *(f"ms/image, {n} thread{'s' * (n > 1)}" for n in threads)]
    shown = [name for name in SCORES if any(name in score for score in scores.values())]
    lines = [[*titles, *shown], ["---"] * (len(titles) + len(shown))]
    for cost in costs:
        height, width = cost.image
        times = [f"{cost.milliseconds[count]:.1f}" for count in threads]
        known = [scores.get(cost.encoder, {}).get(name) for name in shown]
        worth = ["" if value is None else f"{value:.3f}" for value in known]
        size = f"{cost.graph_bytes / MEGABYTE:.1f}"
        lines.append([cost.encoder, f"{height} x {width}", str(cost.features), size, *times, *worth])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns 0, 1 for a named error, 130 after Ctrl-C."""
    parser = _parser()
    given = parser.parse_args(arguments)
    if min(given.threads) < 1 or given.batch_size < 1 or given.repeats < 1:
        parser.error("--threads, --batch-size and --repeats must be at least 1")
    return outcome(lambda: _run(given), EncoderError, ValueError)


def _run(given: argparse.Namespace) -> None:
    scores = dict(_scores(entry) for entry in given.scores)
    bar = tqdm(given.encoders, unit="encoder", disable=None)
    try:
        costs = [measure(name, given.weights, given.threads, given.batch_size, given.repeats) for name in bar]
    except ModuleNotFoundError as missing:
        raise EncoderError(f"timing encoders needs the package {missing.name}: install it") from missing
    print(table(costs, scores))
    if given.output is not None:
        write_json(given.output, [asdict(cost) | {"scores": scores.get(cost.encoder, {})} for cost in costs])


def _scores(entry: str) -> tuple[str, dict[str, Any]]:
    """Reads "encoder=scores.json", a file of training.evaluate. Raises ValueError for anything else."""
    name, _, path = entry.partition("=")
    try:
        scores = json.loads(Path(path).read_text(encoding="utf-8"))["scores"]
        return name, {key: float(scores[key]) for key in SCORES if key in scores}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"--scores needs ENCODER=FILE, with a file from training.evaluate, not {entry}") from error


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m training.compare_encoders", description=__doc__)
    parser.add_argument("encoders", nargs="+", help="names of encoders")
    parser.add_argument("--weights", default="pretrained", help='"pretrained" (default) or "random", which is as fast')
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2], help="thread counts to time (default: 1 2)")
    parser.add_argument("--batch-size", type=int, default=8, help="images at once (default: 8)")
    parser.add_argument("--repeats", type=int, default=15, help="timed batches, after one for warm-up (default: 15)")
    parser.add_argument("--scores", action="append", default=[], metavar="ENCODER=FILE", help="of training.evaluate")
    parser.add_argument("--output", type=Path, help="JSON file for the figures")
    return parser


if __name__ == "__main__":
    sys.exit(main())
