"""The options of the evaluation command, and which of them exclude each other. Opens and computes nothing."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from engine.commands.parser import Parser, existing_file, number, whole
from training.files import check_outputs
from training.metrics.bootstrap import RESAMPLES

ENGINE = {"provider": "auto", "precision": "auto", "batch_size": 32}  # defaults


def read_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Parses and checks the command line; ends the program with a one-sentence error if it is invalid."""
    parser = command_line()
    given = parser.parse_args(arguments)
    if given.greedy and given.length_penalty is not None:
        parser.error("--length-penalty ranks the sentences of a beam, so it cannot be used with --greedy")
    decoding = ("beam", "greedy", "length_penalty", "no_repeat_ngram_size", "bad_endings")
    told = [
        name
        for name in ("bundle", *ENGINE, *decoding)
        if (value := getattr(given, name)) is not None and value is not False
    ]
    if given.results is not None and told:
        option = "--" + told[0].replace("_", "-")
        parser.error(f"--results scores existing captions, so {option} cannot be used with it")
    for name, usual in ENGINE.items():
        if getattr(given, name) is None:
            setattr(given, name, usual)
    check_outputs(parser, given, "--output", "--results-out", "--report")
    return given


def command_line() -> Parser:
    """Returns the parser of the command."""
    parser = Parser(
        prog="python -m training.evaluate",
        description="Captions a data set with the engine and measures the captions: BLEU, METEOR, ROUGE-L and "
        "CIDEr with confidence intervals, statistics, and a page with photographs.",
    )
    parser.add_argument("--bundle", type=Path, help="bundle to run (default: the one that ships)")
    parser.add_argument("--data", type=Path, required=True, help="COCO 2014 or Flickr8k folder")
    parser.add_argument(
        "--sentences",
        type=existing_file("a file of captions as JSON lines"),
        default=[],
        action="append",
        metavar="FILE",
        help="people's captions as JSON lines, used for measuring fluency in addition to the training captions",
    )
    parser.add_argument("--split", choices=("train", "val"), default="val", help="train or validation list (val)")
    results = 'JSON list of {"image_id", "caption"}'
    parser.add_argument(
        "--results", type=existing_file(f"a {results}"), help=f"score these captions instead: {results}"
    )
    decoding = parser.add_mutually_exclusive_group()
    decoding.add_argument("--beam", type=whole(1), help="beam size (default: the bundle's)")
    decoding.add_argument("--greedy", action="store_true", help="greedy search instead of a beam")
    parser.add_argument("--length-penalty", type=number(0, 10), help="exponent of the length (default: the bundle's)")
    parser.add_argument(
        "--no-repeat-ngram-size", type=whole(0), help="never repeat this many words, 0: allowed (default: the bundle's)"
    )
    parser.add_argument(
        "--bad-endings", type=_words, help="words that captions must not end in: a,the,of (default: the bundle's)"
    )
    parser.add_argument("--provider", help="the engine's provider (default: auto)")
    parser.add_argument("--precision", help="the bundle's precision (default: auto)")
    parser.add_argument("--batch-size", type=whole(1), help="images at once (default: 32)")
    parser.add_argument("--limit", type=whole(1), help="use only the first images, this many")
    parser.add_argument("--strict", action="store_true", help="treat any problem in the data as an error")
    parser.add_argument(
        "--resamples",
        type=whole(0),
        default=RESAMPLES,
        help=f"bootstrap resamples for the intervals (default: {RESAMPLES:,}; 0: none)",
    )
    parser.add_argument(
        "--seed", type=whole(0), default=0, help="seed of resamples and random photographs (default: 0)"
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("scores.json"),
        help="JSON file for scores and captions (default: scores.json in the current folder)",
    )
    parser.add_argument("--results-out", type=Path, help="JSON file for the captions, in COCO's result format")
    parser.add_argument("--report", type=Path, help="HTML page of photographs with captions and scores")
    parser.add_argument("--show", type=whole(1), default=12, help="photographs of each kind on the page (default: 12)")
    return parser


def _words(value: str) -> tuple[str, ...]:
    return tuple(word for word in value.split(",") if word)
