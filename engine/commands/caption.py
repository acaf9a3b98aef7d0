"""`python -m engine caption`: prints a line for each image. Owns the arguments, the output and the exit code."""

import argparse
import json
import re
import sys
from collections.abc import Callable, Sequence
from functools import partial
from math import isnan
from pathlib import Path

from engine.attention import require_attention
from engine.captioner import Captioner
from engine.commands.arguments import add_model, flag_of, given, in_flags
from engine.commands.attention_page import AttentionPage
from engine.commands.decoding import add_decoding, decoding_of
from engine.commands.parser import Parser, number
from engine.commands.progress import Progress
from engine.errors import ImageError, OptionsError
from engine.images.formats import FORMATS, check_formats, image_suffixes
from engine.images.load import load_for_model
from engine.images.paths import Scan, expand
from engine.options import Decoding
from engine.result import Caption, Hypothesis
from engine.runtime.options import RuntimeOptions

INTERRUPTED = 130  # 128 + the signal, as shells have it


def add(commands: "argparse._SubParsersAction[Parser]") -> None:
    """Adds the command to the command line."""
    epilog = "Exit code: 0 all captioned, 1 some images failed, 2 wrong usage or nothing to do, 130 interrupted."
    parser = commands.add_parser("caption", help="caption images", epilog=epilog, allow_abbrev=False)
    parser.set_defaults(command=run, interrupted="no image captioned")
    option = parser.add_argument
    option(
        "paths",
        nargs="+",
        metavar="PATH",
        help="file, folder (with subfolders), glob pattern, or - for a list of paths on stdin",
    )
    option("--json", action="store_true", help="print one JSON object per line, also for images that fail")
    option(
        "--min-confidence",
        type=number(0, 1),
        metavar="X",
        help='drop captions with a confidence below X (0 to 1): their image gets no line, or "text": null with --json',
    )
    option(
        "--attention", type=Path, metavar="FILE", help="write a page that shows where the model looked for each word"
    )
    option("--batch-size", type=int, metavar="N", help="largest number of images that run at once")
    option("--threads", type=int, default=0, metavar="N", help="CPU threads; 0, the default, is one for each core")
    option("--max-pixels", type=int, metavar="N", help="refuse images with more pixels")
    option(
        "--formats",
        type=lambda names: tuple(names.upper().split(",")),
        metavar="NAME[,NAME]",
        help=f"read only these formats; default: {','.join(FORMATS)}",
    )
    add_model(parser)
    add_decoding(parser)


def run(arguments: argparse.Namespace, captioner_factory: Callable[..., Captioner]) -> int:
    """Prints a line for each image once it is captioned, then on standard error what failed and what was left out."""
    decoding = decoding_of(arguments)
    least: float | None = arguments.min_confidence
    if "" in arguments.paths:
        raise OptionsError("a PATH is empty: name a file or a folder (. is the current one)")
    if "-" in arguments.paths and sys.stdin is None:
        raise OptionsError("- reads paths from standard input, which is closed: pipe a list into it")
    listed = sys.stdin.buffer if "-" in arguments.paths else ()
    scan = Scan(image_suffixes(check_formats(arguments.formats or FORMATS)))
    paths = [path for argument in arguments.paths for path in expand(argument, listed, scan)]
    said = _one_line(str(scan))
    if not paths:
        where = ", ".join(map(_one_line, arguments.paths))
        nothing = f"no image was found in {where}: name image files, or folders with files such as x.jpg or x.png"
        raise OptionsError(f"{nothing}; {said}" if said else nothing)
    captioner = captioner_factory(
        arguments.bundle,
        provider=arguments.provider,
        precision=arguments.precision,
        runtime=RuntimeOptions(threads=arguments.threads),
        **given(arguments, ("batch_size", "max_pixels", "formats")),
    )
    if least is not None and not captioner.bundle.manifest.confidence:
        name = captioner.bundle.manifest.name
        raise OptionsError(f"--min-confidence needs a calibrated bundle, and {name} is not: see `training.calibrate`")
    _warn_of_unknown_words(decoding, captioner)
    page = _page(arguments.attention, captioner)
    done, doubted, failed = 0, 0, []
    interrupted = False
    progress = Progress(len(paths), sys.stderr, "{done:,} of {total:,} images, {rate:.1f} a second")
    try:
        progress.show(0)
        results = captioner.iter_captions(paths, decoding, on_error="return", attention=page is not None)
        for path, result in zip(paths, results, strict=True):
            progress.clear()
            kept = [] if isinstance(result, ImageError) else _trusted(result, least)
            if isinstance(result, ImageError):
                failed.append(f"  {_one_line(path)}: {_explanation(result)}")
            elif not kept:
                doubted += 1
            elif page:
                page.add(path, result)
            if arguments.json:
                print(_json_line(path, result, kept), flush=True)
            elif kept:
                print(_text_lines(path, kept, with_alternatives=arguments.alternatives is not None), flush=True)
            done += 1
            progress.show(done)
    except KeyboardInterrupt:
        interrupted = True
    finally:
        progress.clear()
        if page:
            page.close()
    if doubted:
        print(f"{doubted} of {done - len(failed)} captions were left out: confidence below {least:g}", file=sys.stderr)
    if failed:
        print(f"{len(failed)} of {len(paths)} images could not be captioned:", *failed, sep="\n", file=sys.stderr)
    if said:
        print(said, file=sys.stderr)
    if interrupted:
        print(f"interrupted: {done - len(failed)} of {len(paths)} images captioned", file=sys.stderr)
        return INTERRUPTED
    return 1 if failed else 0


def _page(path: Path | None, captioner: Captioner) -> AttentionPage | None:
    """Opens the page of --attention. Raises OptionsError if the model has none or the file cannot be written."""
    if path is None:
        return None
    manifest = captioner.bundle.manifest
    require_attention(manifest)
    if path.is_dir() or not path.parent.is_dir():
        raise OptionsError(f"--attention must be a file in a folder that exists, but it is {path}")
    image, most, formats = manifest.image, captioner.max_pixels, captioner.formats
    load = partial(load_for_model, image=image, max_pixels=most, formats=formats)
    return AttentionPage(path, image.resize, load, f"Where {manifest.name} looked")


def _warn_of_unknown_words(decoding: Decoding, captioner: Captioner) -> None:
    """Prints which words of --suppress and --bad-endings mean nothing: probably they are misspelt."""
    for name in ("suppress", "bad_endings"):
        words = [word for text in getattr(decoding, name) or () for word in captioner.bundle.vocabulary.split(text)]
        if unknown := [word for word in words if word not in captioner.bundle.vocabulary.ids]:
            said = f"the bundle never writes {', '.join(unknown)}, so {flag_of(name)} changes nothing there"
            print(f"note: {_one_line(said)}", file=sys.stderr)


def _explanation(error: ImageError) -> str:
    return "; ".join(filter(None, (error.reason, in_flags(error.advice))))


def _one_line(path: str) -> str:
    """Returns a path with control characters, line breaks and undecodable bytes escaped."""
    signs = "[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]"
    return re.sub(signs, lambda sign: sign[0].encode("unicode_escape").decode("ascii"), path)


def _trusted(caption: Caption, least: float | None) -> list[Hypothesis]:
    """Returns the hypotheses with at least this confidence, best first; none if the caption itself has less."""
    stay = [one for one in caption.alternatives if least is None or one.confidence >= least]
    return stay if stay and stay[0] is caption.alternatives[0] else []


def _text_lines(path: str, kept: Sequence[Hypothesis], *, with_alternatives: bool) -> str:
    others = kept if with_alternatives else ()
    return "\n".join([f"{_one_line(path)}\t{kept[0].text}", *(f"\t{one.score:.3g}\t{one.text}" for one in others)])


def _json_line(path: str, result: Caption | ImageError, kept: Sequence[Hypothesis]) -> str:
    if isinstance(result, ImageError):
        return json.dumps({"image": path, "error": _explanation(result)})
    best = {"image": path, **_scores(result)} | ({} if kept else {"text": None})
    return json.dumps(best | {"alternatives": [_scores(one) for one in kept]})


def _scores(hypothesis: Hypothesis) -> dict[str, str | float | None]:
    return {
        "text": hypothesis.text,
        "score": hypothesis.score,
        "log_prob": hypothesis.log_prob,
        "confidence": None if isnan(hypothesis.confidence) else hypothesis.confidence,  # JSON knows no NaN
    }
