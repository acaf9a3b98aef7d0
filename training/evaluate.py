"""The evaluation command: python -m training.evaluate --bundle FOLDER --data FOLDER --split val.

Captions a data set's images with the engine and scores the captions against those that people wrote.
"""

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from engine import Beam, Captioner, EngineError, Greedy, ImageError
from engine.manifest import Defaults
from engine.options import Decoding
from training.checkpoint import write_json
from training.data import DataError, Dataset, open_dataset
from training.metrics import MetricsError, Scores, score_captions


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What captioning a data set came to."""

    captions: dict[str, str]  # image -> sentence
    refused: dict[str, str]  # image -> why it could not be read
    scores: Scores
    seconds: float  # reading, decoding and captioning all images


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns 0, 1 for a named error, 130 after Ctrl-C."""
    parser = _parser()
    given = parser.parse_args(arguments)
    if given.limit is not None and given.limit < 1:
        parser.error(f"--limit must be at least 1, but it is {given.limit}")
    if given.greedy and given.length_penalty is not None:
        parser.error("--length-penalty ranks the sentences of a beam, so it cannot go with --greedy")
    if given.output.is_dir() or not given.output.parent.is_dir():
        parser.error(f"--output {given.output} cannot be written: it must be a file in a folder that exists")
    try:
        _run(given)
    except (EngineError, DataError, MetricsError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted: nothing was written", file=sys.stderr)
        return 130
    return 0


def _run(given: argparse.Namespace) -> None:
    dataset = open_dataset(given.data, given.split, strict=given.strict)
    captioner = Captioner(given.bundle, provider=given.provider, precision=given.precision, batch_size=given.batch_size)
    if given.greedy:
        decoding: Decoding = Greedy()
    else:
        decoding = Beam(beam_size=given.beam, length_penalty=given.length_penalty)
    evaluation = evaluate(captioner, dataset, decoding, limit=given.limit)
    print(dataset.report)
    for name, reason in evaluation.refused.items():
        print(f"left out {name}: {reason}", file=sys.stderr)
    images, how = len(evaluation.captions), _describe(decoding, captioner.bundle.manifest.defaults)
    print(f"{images:,} images of {given.data} ({given.split}), {how}, {captioner.provider} {captioner.precision}")
    print(evaluation.scores)
    print(f"{evaluation.seconds:.1f} s, {images / evaluation.seconds:.1f} images/s")
    write_json(
        given.output,
        {
            "bundle": captioner.bundle.manifest.name,
            "data": given.data.resolve().name,
            "split": given.split,
            "decoding": how,
            "provider": captioner.provider,
            "precision": captioner.precision,
            "images": images,
            "scores": evaluation.scores.named(),
            "tokeniser": evaluation.scores.tokeniser,
            "notes": evaluation.scores.notes,
            "seconds": round(evaluation.seconds, 3),
            "images_per_second": round(images / evaluation.seconds, 2),
            "refused": evaluation.refused,
            "captions": evaluation.captions,
        },
    )
    print(f"written to {given.output}")


def evaluate(captioner: Captioner, dataset: Dataset, decoding: Decoding, *, limit: int | None = None) -> Evaluation:
    """Captions the first `limit` images (None: all) and scores them; broken ones go to the data set's report.

    Raises MetricsError when none can be read, and DataError for a broken one when the report is strict.
    """
    examples = dataset.examples[:limit]
    unreadable: dict[str, str] = {}

    def photographs() -> Iterator[bytes]:
        for example in examples:
            try:
                yield dataset.read(example.name)
            except OSError as error:
                unreadable[example.name] = str(error)
                yield b""  # the engine refuses what is empty, and the rest goes on

    began = time.perf_counter()
    results = captioner.iter_captions(photographs(), decoding, on_error="return")
    bar = tqdm(results, total=len(examples), desc="captions", unit="image", disable=None)
    captions: dict[str, str] = {}
    refused: dict[str, str] = {}
    for example, result in zip(examples, bar, strict=True):
        if isinstance(result, ImageError):
            refused[example.name] = unreadable.get(example.name, result.reason)
            dataset.report.add("broken images", example.name, refused[example.name])
            dataset.report.check()
        else:
            captions[example.name] = result.text
    seconds = time.perf_counter() - began
    references = {example.name: example.captions for example in examples if example.name in captions}
    return Evaluation(captions, refused, score_captions(references, captions), seconds)


def _describe(decoding: Decoding, defaults: Defaults) -> str:
    """Names the decoding with the values in use, the bundle's defaults filled in."""
    if not isinstance(decoding, Beam):
        return "greedy"
    penalty = defaults.length_penalty if decoding.length_penalty is None else decoding.length_penalty
    return f"beam {decoding.beam_size or defaults.beam_size}, length penalty {penalty:g}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m training.evaluate",
        description="Captions a data set with the engine and scores the captions (BLEU, ROUGE-L, CIDEr, METEOR).",
    )
    parser.add_argument("--bundle", type=Path, help="bundle to run (default: the one that ships)")
    parser.add_argument("--data", type=Path, required=True, help="COCO 2014 or Flickr8k folder")
    parser.add_argument("--split", choices=("train", "val"), default="val", help="which images (default: val)")
    decoding = parser.add_mutually_exclusive_group()
    decoding.add_argument("--beam", type=int, help="beam size (default: the bundle's)")
    decoding.add_argument("--greedy", action="store_true", help="the likeliest word each time, no beam")
    parser.add_argument("--length-penalty", type=float, help="exponent of the length (default: the bundle's)")
    parser.add_argument("--provider", default="auto", help="as of the engine (default: auto)")
    parser.add_argument("--precision", default="auto", help="as of the bundle (default: auto)")
    parser.add_argument("--batch-size", type=int, default=32, help="images at once (default: 32)")
    parser.add_argument("--limit", type=int, help="only so many images")
    parser.add_argument("--strict", action="store_true", help="any fault of the data is an error")
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("scores.json"),
        help="JSON file for scores and captions (default: scores.json in the current folder)",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
