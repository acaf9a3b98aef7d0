"""`python -m engine caption`: prints a line for each image. Owns the arguments, the output and the exit code."""

import argparse
import sys
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from engine.captioner import Captioner
from engine.commands.arguments import add_model, flag_of, given
from engine.commands.decoding import add_decoding, decoding_of
from engine.commands.destinations import (
    Destination,
    add_destinations,
    check_destinations,
    page_of,
    sidecars_of,
    suffixes_of,
)
from engine.commands.lines import explanation, json_line, one_line, text_lines, trusted
from engine.commands.parser import Parser, number
from engine.commands.progress import Progress
from engine.errors import ImageError, OptionsError
from engine.images.formats import FORMATS
from engine.images.paths import Scan, expand
from engine.options import Decoding
from engine.runtime.options import RuntimeOptions

if TYPE_CHECKING:
    from engine.writing.sidecars import Sidecars

INTERRUPTED = 130  # 128 + the signal, as shells have it


def add(commands: "argparse._SubParsersAction[Parser]") -> None:
    """Adds the command to the command line."""
    epilog = "Exit code: 0 all captioned, 1 some images failed, 2 wrong usage or nothing to do, 130 interrupted."
    parser = commands.add_parser("caption", help="caption images", epilog=epilog, allow_abbrev=False)
    parser.set_defaults(command=run, interrupted="no image captioned")
    option = parser.add_argument
    option(
        "paths",
        nargs="*",
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
    add_destinations(parser)


def run(arguments: argparse.Namespace, captioner_factory: Callable[..., Captioner]) -> int:
    """Prints a line for each image once it is captioned, then on standard error what failed and what was left out."""
    decoding = decoding_of(arguments)
    check_destinations(arguments)
    open_captioner = partial(_opened, arguments, decoding, captioner_factory)
    if arguments.alt_text is not None:
        from engine.commands.alt_text import fill

        return fill(arguments, decoding, open_captioner)
    paths, said = _paths(arguments)
    if (sidecars := sidecars_of(arguments)) is not None:
        paths = [path for path in paths if sidecars.wants(path)]
    code = _caption(paths, arguments, decoding, open_captioner, sidecars) if paths else 0
    if sidecars is not None:
        code = max(code, _tell(sidecars))
    if said:
        print(said, file=sys.stderr)
    return code


def _caption(
    paths: list[str],
    arguments: argparse.Namespace,
    decoding: Decoding,
    open_captioner: Callable[[], Captioner],
    sidecars: "Sidecars | None",
) -> int:
    captioner = open_captioner()
    page = page_of(arguments.attention, captioner)
    destinations: list[Destination] = [each for each in (page, sidecars) if each is not None]
    least: float | None = arguments.min_confidence
    done, doubted, failed = 0, 0, []
    interrupted = False
    progress = Progress(len(paths), sys.stderr, "{done:,} of {total:,} images, {rate:.1f} a second")
    try:
        progress.show(0)
        results = captioner.iter_captions(paths, decoding, on_error="return", attention=page is not None)
        for path, result in zip(paths, results, strict=True):
            progress.clear()
            kept = [] if isinstance(result, ImageError) else trusted(result, least)
            if isinstance(result, ImageError):
                failed.append(f"  {one_line(path)}: {explanation(result)}")
            elif not kept:
                doubted += 1
            else:
                for destination in destinations:
                    destination.add(path, result)
            if arguments.json:
                print(json_line(path, result, kept), flush=True)
            elif kept:
                print(text_lines(path, kept, with_alternatives=arguments.alternatives is not None), flush=True)
            done += 1
            progress.show(done)
    except KeyboardInterrupt:
        interrupted = True
    finally:
        progress.clear()
        for destination in destinations:
            destination.close()
    if doubted:
        print(f"{doubted} of {done - len(failed)} captions were left out: confidence below {least:g}", file=sys.stderr)
    if failed:
        print(f"{len(failed)} of {len(paths)} images could not be captioned:", *failed, sep="\n", file=sys.stderr)
    if interrupted:
        print(f"interrupted: {done - len(failed)} of {len(paths)} images captioned", file=sys.stderr)
        return INTERRUPTED
    return 1 if failed else 0


def _paths(arguments: argparse.Namespace) -> tuple[list[str], str]:
    """Returns the images to caption, and what was left out. Raises OptionsError if there are none."""
    if "" in arguments.paths:
        raise OptionsError("a PATH is empty: name a file or a folder (. is the current one)")
    if "-" in arguments.paths and sys.stdin is None:
        raise OptionsError("- reads paths from standard input, which is closed: pipe a list into it")
    listed = sys.stdin.buffer if "-" in arguments.paths else ()
    scan = Scan(suffixes_of(arguments))
    paths = [path for argument in arguments.paths for path in expand(argument, listed, scan)]
    said = one_line(str(scan))
    if not paths:
        where = ", ".join(map(one_line, arguments.paths))
        nothing = f"no image was found in {where}: name image files, or folders with files such as x.jpg or x.png"
        raise OptionsError(f"{nothing}; {said}" if said else nothing)
    return paths, said


def _opened(
    arguments: argparse.Namespace, decoding: Decoding, captioner_factory: Callable[..., Captioner]
) -> Captioner:
    """Makes the captioner that the arguments ask for. Raises OptionsError."""
    captioner = captioner_factory(
        arguments.bundle,
        provider=arguments.provider,
        precision=arguments.precision,
        runtime=RuntimeOptions(threads=arguments.threads),
        **given(arguments, ("batch_size", "max_pixels", "formats")),
    )
    if arguments.min_confidence is not None and not captioner.bundle.manifest.confidence:
        name = captioner.bundle.manifest.name
        raise OptionsError(f"--min-confidence needs a calibrated bundle, and {name} is not: see `training.calibrate`")
    _warn_of_unknown_words(decoding, captioner)
    return captioner


def _tell(sidecars: "Sidecars") -> int:
    """Prints what became of the sidecars; returns the exit code."""
    print(f"{_counted(sidecars.written, 'description')} written to sidecars", file=sys.stderr)
    if sidecars.kept:
        kept = "1 photograph has" if sidecars.kept == 1 else f"{sidecars.kept:,} photographs have"
        print(f"{kept} a description already, which is kept (--overwrite replaces it)", file=sys.stderr)
    if sidecars.failed:
        lines = (f"  {one_line(path)}: {reason}" for path, reason in sidecars.failed)
        print(f"{_counted(len(sidecars.failed), 'sidecar')} left as before:", *lines, sep="\n", file=sys.stderr)
    return 1 if sidecars.failed else 0


def _counted(count: int, what: str) -> str:
    return f"1 {what} was" if count == 1 else f"{count:,} {what}s were"


def _warn_of_unknown_words(decoding: Decoding, captioner: Captioner) -> None:
    """Prints which words of --suppress and --bad-endings mean nothing: probably they are misspelt."""
    for name in ("suppress", "bad_endings"):
        words = [word for text in getattr(decoding, name) or () for word in captioner.bundle.vocabulary.split(text)]
        if unknown := [word for word in words if word not in captioner.bundle.vocabulary.ids]:
            said = f"the bundle never writes {', '.join(unknown)}, so {flag_of(name)} changes nothing there"
            print(f"note: {one_line(said)}", file=sys.stderr)
