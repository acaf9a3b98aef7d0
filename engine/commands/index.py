"""`python -m engine index`: makes photographs searchable. Owns the arguments, the progress and what is printed."""

import argparse
import glob
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from engine.captioner import Captioner
from engine.commands.arguments import add_model
from engine.commands.lines import near, one_line
from engine.commands.parser import Parser, number
from engine.commands.progress import Progress
from engine.errors import OptionsError
from engine.runtime.options import RuntimeOptions
from engine.search.indexing import Added
from engine.search.photo_index import PhotoIndex

INTERRUPTED = 130  # 128 + the signal, as shells have it
MOST_ERRORS = 20  # that are listed
DEFAULT = "default: photos.db in your data folder"


def add(commands: "argparse._SubParsersAction[Parser]") -> None:
    """Adds the command to the command line."""
    parser = commands.add_parser(
        "index",
        help="make photographs searchable by words",
        description="Captions photographs once and keeps captions and features in an index for `search`. The same "
        "command continues where it was stopped, and later captions only what is new.",
        epilog="Exit code: 0 all indexed, 1 some files have no caption, 2 wrong usage or the index cannot be written, "
        "130 interrupted.",
        allow_abbrev=False,
    )
    parser.set_defaults(command=run, interrupted="what is indexed is kept, and the same command continues")
    option = parser.add_argument
    option("paths", nargs="*", metavar="PATH", help="file, folder (with subfolders) or glob pattern")
    option("--index", metavar="FILE", help=f"file of the index, or a postgresql:// address; {DEFAULT}")
    option(
        "--watch",
        nargs="?",
        const=10.0,
        type=number(1, 86_400),
        metavar="SECONDS",
        help="go on, and look for changes every SECONDS (10 if left out), until interrupted",
    )
    option("--retry", action="store_true", help="read files again that had an error and have not changed")
    text = "in place of PATH: take over the captions that serving.ray_data --features wrote into this folder"
    option("--from-parquet", metavar="OUTPUT", help=text)
    text = "with --from-parquet: where its images are now (default: where they were captioned)"
    option("--root", metavar="FOLDER", help=text)
    option("--threads", type=int, default=0, metavar="N", help="CPU threads; 0, the default, is one for each core")
    add_model(parser)


def run(arguments: argparse.Namespace, captioner_factory: Callable[..., Captioner]) -> int:
    """Indexes the files, and with --watch whatever comes; says on standard error what became of them."""
    _require_sense(arguments)
    captioner = captioner_factory(
        arguments.bundle,
        provider=arguments.provider,
        precision=arguments.precision,
        runtime=RuntimeOptions(threads=arguments.threads),
    )
    with PhotoIndex(arguments.index, captioner) as index:
        if arguments.from_parquet is not None:
            with _progress() as report:
                added = index.add_parquet(arguments.from_parquet, root=arguments.root, report=report)
            _tell(index, added, "taken over")
            return 1 if added.errors else 0
        added = _pass(index, arguments.paths, retry=arguments.retry)
        _tell(index, added)
        while arguments.watch:
            known = added.errors
            time.sleep(arguments.watch)
            added = _pass(index, arguments.paths, retry=False)
            if added.captioned or added.copies or added.missing or added.errors.keys() - known.keys():
                _tell(index, added)
    return 1 if added.errors else 0


def _require_sense(arguments: argparse.Namespace) -> None:
    """Raises OptionsError for arguments that do not go together."""
    if "" in arguments.paths:
        raise OptionsError("a PATH is empty: name a file or a folder (. is the current one)")
    if "-" in arguments.paths:
        raise OptionsError("- is no PATH of index, which goes on with files and folders: name these")
    if arguments.index == "":
        raise OptionsError("--index is empty: name a file, or leave it out for photos.db in your data folder")
    if "" in (arguments.from_parquet, arguments.root):
        raise OptionsError("--from-parquet and --root name folders, and one of them is empty")
    if arguments.from_parquet is None:
        if not arguments.paths:
            raise OptionsError("there is nothing to index: name files or folders, or an OUTPUT by --from-parquet")
        if arguments.root is not None:
            raise OptionsError("--root needs --from-parquet: it says where the images of an OUTPUT are now")
    elif arguments.paths:
        raise OptionsError("--from-parquet takes the place of PATH: run the command once with each")
    elif arguments.watch or arguments.retry:
        flag = "--watch" if arguments.watch else "--retry"
        raise OptionsError(f"{flag} cannot be used with --from-parquet, which reads no image: give it with a PATH")


def _pass(index: PhotoIndex, paths: list[str], *, retry: bool) -> Added:
    with _progress() as report:
        return index.add([path for name in paths for path in _expanded(name)], report=report, retry=retry)


@contextmanager
def _progress() -> Iterator[Callable[[Added], None]]:
    """Gives what draws a progress bar, and removes it in the end."""
    progress: list[Progress] = []

    def report(added: Added) -> None:
        if not progress:
            progress.append(Progress(added.files, sys.stderr, "{done:,} of {total:,} files, {rate:.1f} a second"))
        progress[0].clear()
        progress[0].show(added.done)

    try:
        yield report
    finally:
        for each in progress:
            each.clear()


def _expanded(name: str) -> list[str]:
    """Returns a path, or the files of a glob pattern."""
    if any(sign in name for sign in "*?[") and not Path(name).exists():
        # folders stay folders, so that what is gone from them is noticed
        return sorted(glob.glob(name, recursive=True)) or [name]  # noqa: PTH207 - keeps names as given
    return [name]


def _tell(index: PhotoIndex, added: Added, made: str = "captioned") -> None:
    parts = [
        f"{count:,} {what}"
        for count, what in (
            (added.captioned, made),
            (added.copies, "known by their bytes"),
            (added.unchanged, "unchanged"),
            (len(added.errors), "without a caption"),
            (added.missing, "gone"),
            (added.changed, "changed or gone since (index their folder)"),
        )
        if count
    ]
    counts = index.counts()
    print(
        f"{', '.join(parts) or 'no image was found'}; {counts.photos:,} photographs in {index.place}", file=sys.stderr
    )
    if added.left_out:
        print(added.left_out, file=sys.stderr)
    for path, why in list(added.errors.items())[:MOST_ERRORS]:
        print(f"  {one_line(near(path))}: {one_line(why)}", file=sys.stderr)
    if len(added.errors) > MOST_ERRORS:
        print(f"  and {len(added.errors) - MOST_ERRORS:,} more", file=sys.stderr)
    if counts.other_bundles:
        photos = "1 photograph" if counts.other_bundles == 1 else f"{counts.other_bundles:,} photographs"
        print(f"{photos} of another bundle are not searched until they are indexed again", file=sys.stderr)
