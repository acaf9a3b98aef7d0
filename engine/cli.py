"""The command line: `python -m engine caption` and `info`. Owns arguments and output; knows only the public names."""

import argparse
import io
import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict
from importlib import metadata
from typing import Any

import numpy as np
import PIL

from engine import (
    Beam,
    Caption,
    Captioner,
    EngineError,
    Greedy,
    Hypothesis,
    ImageError,
    OptionsError,
    RuntimeOptions,
    Sample,
)
from engine.paths import expand
from engine.progress import Progress
from engine.runtime.providers import available_providers

NEEDS = {
    **dict.fromkeys(("temperature", "top_k", "top_p", "seed"), ((Sample,), "--sample")),
    "length_penalty": ((Beam,), "beam search: leave out --greedy and --sample"),
    "alternatives": ((Beam, Sample), "beam search or --sample: leave out --greedy"),
}  # options that not every way of decoding takes
ANY_DECODING = ("max_length", "min_length", "prefix", "suppress", "no_repeat_ngram_size")
DETAILS = {"bundle", "provider", "precision", "notes", "seconds", "images_per_second"}  # of a measurement: for --json
CLOSED_PIPE, INTERRUPTED = 141, 130  # 128 + the signal, as shells have it


def main(argv: Sequence[str] | None = None, captioner_factory: Callable[..., Captioner] = Captioner) -> int:
    """Runs a command and returns its exit code.

    0: all went well; 1: some images failed; 2: wrong usage, or an EngineError, told in one sentence; 130: interrupted.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a path may hold what the terminal cannot show
    arguments = _parser().parse_args(argv)
    try:
        code: int = arguments.command(arguments, captioner_factory)
        print(end="", flush=True)
    except EngineError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted: no image captioned", file=sys.stderr)
        return INTERRUPTED
    except OSError as error:  # standard output is closed or full; the interpreter flushes it once more as it ends
        with suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):
            return CLOSED_PIPE
        print(f"error: {error}", file=sys.stderr)
        return 2
    return code


def caption(arguments: argparse.Namespace, captioner_factory: Callable[..., Captioner]) -> int:
    """Prints a line for each image as it comes, then on standard error the images that failed."""
    decoding = _decoding(arguments)
    if "-" in arguments.paths and sys.stdin is None:
        raise OptionsError("- means a list of paths on standard input, and that is closed")
    listed = sys.stdin.buffer if "-" in arguments.paths else ()
    paths = [path for argument in arguments.paths for path in expand(argument, listed)]
    if not paths:
        raise OptionsError(f"no image was found in {', '.join(map(_one_line, arguments.paths))}")
    captioner = captioner_factory(
        arguments.bundle,
        provider=arguments.provider,
        precision=arguments.precision,
        runtime=RuntimeOptions(threads=arguments.threads),
        **_given(arguments, ("batch_size", "max_pixels")),
    )
    done, failed = 0, []
    interrupted = False
    progress = Progress(len(paths), sys.stderr)
    try:
        progress.show(0)
        for path, result in zip(paths, captioner.iter_captions(paths, decoding, on_error="return"), strict=True):
            progress.clear()
            if isinstance(result, ImageError):
                failed.append(f"  {_one_line(path)}: {result.reason}")
            if arguments.json:
                print(_json_line(path, result), flush=True)
            elif isinstance(result, Caption):
                print(_text_lines(path, result, with_alternatives=arguments.alternatives is not None), flush=True)
            done += 1
            progress.show(done)
    except KeyboardInterrupt:
        interrupted = True
    finally:
        progress.clear()
    if failed:
        print(f"{len(failed)} of {len(paths)} images could not be captioned:", *failed, sep="\n", file=sys.stderr)
    if interrupted:
        print(f"interrupted: {done - len(failed)} of {len(paths)} images captioned", file=sys.stderr)
        return INTERRUPTED
    return 1 if failed else 0


def info(arguments: argparse.Namespace, captioner_factory: Callable[..., Captioner]) -> int:
    """Prints what would run: bundle, provider, precision, sizes, versions, measured quality."""
    captioner = captioner_factory(arguments.bundle, provider=arguments.provider, precision=arguments.precision)
    import onnxruntime  # here, where the captioner has told in one sentence if it is missing

    manifest = captioner.bundle.manifest
    facts: dict[str, Any] = {
        "bundle": str(captioner.bundle.path),
        "name": manifest.name,
        "provider": captioner.provider,
        "available": available_providers(),
        "precision": captioner.precision,
        "precisions": sorted({graph.precision for graph in manifest.graphs}),
        "encoder": manifest.encoder,
        "image": asdict(manifest.image),
        "feature_size": manifest.feature_size,
        "units": manifest.units,
        "vocabulary_size": manifest.vocabulary_size,
        "defaults": asdict(manifest.defaults),
        "versions": {
            "engine": _engine_version(),
            "onnxruntime": onnxruntime.__version__,
            "numpy": np.__version__,
            "Pillow": PIL.__version__,
        },
        "quality": manifest.quality,
        "terms": {part: said["licence"] for part, said in manifest.provenance.items() if "licence" in said},
    }
    if arguments.json:
        print(json.dumps(facts))
    else:
        facts["quality"] = {name: value for name, value in manifest.quality.items() if name not in DETAILS}
        print("\n".join(f"{name:<16} {_plain(value) or 'not stated'}" for name, value in facts.items()))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m engine", description="Photographs in, English sentences out.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    epilog = "Exit code: 0 all captioned, 1 some images failed, 2 wrong usage or nothing to run, 130 interrupted."
    run = commands.add_parser("caption", help="caption images", epilog=epilog, allow_abbrev=False)
    run.set_defaults(command=caption)
    add = run.add_argument
    add(
        "paths", nargs="+", metavar="PATH", help="file, folder (searched to its depths), glob, or - for a list on stdin"
    )
    add("--json", action="store_true", help="print a JSON object a line, for failed images too")
    ways = run.add_mutually_exclusive_group()
    ways.add_argument("--greedy", action="store_true", help="take the likeliest word at each step")
    ways.add_argument("--beam", type=int, metavar="N", help="beam search of this width (the default way)")
    ways.add_argument("--sample", action="store_true", help="draw words by chance")
    add("--temperature", type=float, metavar="T", help="with --sample: below 1 plays safe, above 1 takes risks")
    add("--top-k", type=int, metavar="N", help="with --sample: draw from the N likeliest words only")
    add("--top-p", type=float, metavar="P", help="with --sample: draw from the fewest words that hold probability P")
    add("--seed", type=int, metavar="N", help="with --sample: the same seed draws the same words")
    add("--alternatives", type=int, metavar="N", help="give N sentences an image, with scores, best first")
    add("--length-penalty", type=float, metavar="P", help="0 favours short sentences, 1 goes by the mean word")
    add("--max-length", type=int, metavar="N", help="most words, the end counting as one")
    add("--min-length", type=int, metavar="N", help="fewest words")
    add("--prefix", metavar="TEXT", help='what each sentence begins with, such as "a photo of"')
    add(
        "--suppress",
        type=lambda words: words.split(","),
        action="extend",
        metavar="WORD[,WORD]",
        help="words that never appear; may be repeated",
    )
    add(
        "--no-repeat-ngram",
        dest="no_repeat_ngram_size",
        type=int,
        metavar="N",
        help="no N words appear twice in the same order",
    )
    add("--batch-size", type=int, metavar="N", help="most images that run at once")
    add("--threads", type=int, default=0, metavar="N", help="CPU threads; 0, the default, is one for each core")
    add("--max-pixels", type=int, metavar="N", help="refuse images with more pixels")
    show = commands.add_parser("info", help="show bundle, provider and versions", allow_abbrev=False)
    show.set_defaults(command=info)
    show.add_argument("--json", action="store_true", help="print one JSON object")
    for command in (run, show):
        command.add_argument("--bundle", metavar="FOLDER", help="the model to use; the one that ships if left out")
        command.add_argument("--provider", default="auto", metavar="NAME", help="what to run on; auto is the default")
        command.add_argument("--precision", default="auto", metavar="NAME", help="auto is the default")
    return parser


def _given(arguments: argparse.Namespace, names: Iterable[str]) -> dict[str, Any]:
    """Returns the named options that were given; the others' defaults are not the command line's business."""
    return {name: value for name in names if (value := getattr(arguments, name)) is not None}


def _decoding(arguments: argparse.Namespace) -> Greedy | Beam | Sample:
    way: type[Greedy | Beam | Sample] = Sample if arguments.sample else Greedy if arguments.greedy else Beam
    given = _given(arguments, NEEDS)
    for name in given:
        ways, what = NEEDS[name]
        if way not in ways:
            raise OptionsError(f"--{name.replace('_', '-')} needs {what}")
    if "alternatives" in given:
        given["num_samples" if way is Sample else "num_hypotheses"] = given.pop("alternatives")
    if arguments.beam is not None:
        given["beam_size"] = arguments.beam
    return way(**given, **_given(arguments, ANY_DECODING))


def _one_line(path: str) -> str:
    """Returns a path with control characters, line breaks and undecodable bytes escaped."""
    signs = "[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]"
    return re.sub(signs, lambda sign: sign[0].encode("unicode_escape").decode("ascii"), path)


def _text_lines(path: str, best: Caption, *, with_alternatives: bool) -> str:
    others = best.alternatives if with_alternatives else ()
    return "\n".join([f"{_one_line(path)}\t{best.text}", *(f"\t{other.score:.3f}\t{other.text}" for other in others)])


def _json_line(path: str, result: Caption | ImageError) -> str:
    if isinstance(result, ImageError):
        return json.dumps({"image": path, "error": result.reason})
    return json.dumps(
        {"image": path, **_scores(result), "alternatives": [_scores(other) for other in result.alternatives]}
    )


def _scores(hypothesis: Hypothesis) -> dict[str, str | float]:
    return {"text": hypothesis.text, "score": hypothesis.score, "log_prob": hypothesis.log_prob}


def _engine_version() -> str:
    try:
        return metadata.version("captioning-engine")
    except metadata.PackageNotFoundError:
        return "not installed (running from its sources)"


def _plain(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_plain(part)}" for key, part in value.items())
    if isinstance(value, list | tuple):
        return " ".join(map(_plain, value))
    return f"{value:.4g}" if isinstance(value, float) else str(value)
