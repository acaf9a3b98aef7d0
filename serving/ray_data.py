"""`python -m serving.ray_data INPUT OUTPUT`: captions any number of images on one machine or a Ray cluster.

Owns the command line, the run and how it ends. Ray Data gives parts to a pool of workers; ray_parts, ray_worker and
ray_output define what a part is and how it is captioned and written, and know nothing of Ray.
"""

import argparse
import math
import os
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, TextIO

from engine import Beam, EngineError, OptionsError
from serving.parser import Parser, explained

try:
    import pyarrow as pa
    from ray.exceptions import RayError, RayTaskError

    from serving.decoding_options import DECODINGS, DEFAULT, OPTIONS, read_decoding, summary
    from serving.formats import format_names
    from serving.ray_features import COLUMNS, HYPOTHESES, PART_BYTES, Source
    from serving.ray_output import ENDINGS, SCHEMA, Output
    from serving.ray_parts import Folder, Tables, usual_size
    from serving.ray_places import inside, one_line, shown
    from serving.ray_pool import captioned, cluster, opened_by_a_worker, room
    from serving.ray_worker import Job, Opened
except ModuleNotFoundError as missing:
    if (missing.name or "").split(".")[0] in ("engine", "serving"):
        raise
    sys.exit(f"error: bulk captioning needs {missing.name}: run python -m pip install '.[ray]' in a checkout")

INTERRUPTED = 130  # 128 + the signal, as shells have it
TELLS = 10.0  # seconds between two lines of progress outside a terminal


def main(argv: Sequence[str] | None = None) -> int:
    """Captions the images that OUTPUT does not have yet and returns the exit code.

    0: all captioned; 1: some images have an error instead of a caption; 2: the run could not start or failed, and one
    sentence says why; 130: interrupted. After 2 and 130 the same command continues where it stopped.
    """
    arguments = command_line().parse_args(argv)
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return _run(arguments)
    except EngineError as error:
        print(f"error: {explained(error)}", file=sys.stderr)
    except RayTaskError as error:
        print(f"error: {_cause(error)}; the same command continues from here", file=sys.stderr)
    except (RayError, ConnectionError, pa.ArrowException, OSError) as error:
        print(f"error: {one_line(error)}; the same command continues from here", file=sys.stderr)
    except KeyboardInterrupt:
        print("interrupted: finished parts are kept, and the same command continues from there", file=sys.stderr)
        return INTERRUPTED
    finally:
        signal.signal(signal.SIGTERM, before)
    return 2


def _run(arguments: argparse.Namespace) -> int:
    job = job_of(arguments)
    found = _found(job)
    begun = job.output.record() or {}
    needs = {"num_cpus": arguments.num_cpus, "num_gpus": arguments.num_gpus}
    with cluster(arguments.address, needs):
        opened = opened_by_a_worker(job, needs)
        size = arguments.part_size or begun.get("part size") or _usual_size(job, opened.source, len(found))
        record = _record(job, opened, arguments, size)
        if job.features:
            record["features"] = opened.source.as_record(shown(_root(job, found)))
        job.output.begin(record)
        parts = found.left(size, job.output.done(), job.output.images)
        most = arguments.concurrency or max(1, room(needs))
        left = sum(map(len, parts))
        print(
            f"{left:,} of {len(found):,} images to do in {len(parts):,} parts, by up to {most} workers on "
            f"{opened.provider} in {opened.precision}",
            file=sys.stderr,
        )
        with Progress(left, sys.stderr) as progress:
            for images, errors in captioned(job, parts, needs, most):
                progress.add(images, errors)
        job.output.end()
    print(
        f"{progress.done:,} images done, {progress.errors:,} of them without a caption, in {shown(job.output.place)}",
        file=sys.stderr,
    )
    return 1 if progress.errors else 0


def _found(job: Job) -> Folder | Tables:
    """Lists INPUT, and prints which files are left out. Raises OptionsError."""
    if job.column:
        return Tables.find(job.input, [job.column, *job.keep])
    folder = Folder.find(job.input, inside(job.input, job.output.place) or "", job.formats)
    for paths, why in ((folder.others, "not named like an image"), (folder.irregular, "not a regular file")):
        if paths:
            files = "1 file" if len(paths) == 1 else f"{len(paths):,} files"
            print(f"{files} left out: {why}, such as {paths[0]}", file=sys.stderr)
    return folder


def _usual_size(job: Job, source: Source, images: int) -> int:
    """Returns the default number of images in a part; fewer where features are so large that memory would be short."""
    size = usual_size(images)
    return max(1, min(size, PART_BYTES // source.row_bytes)) if job.features else size


def _root(job: Job, found: Folder | Tables) -> str:
    """Returns the folder of INPUT: itself, or that of a single table."""
    single = isinstance(found, Tables) and found.rows[0][0] == ""
    return job.input.rpartition("/")[0] or "/" if single else job.input


def job_of(arguments: argparse.Namespace) -> Job:
    """Returns the job that the arguments describe. Raises OptionsError."""
    for name, least in (("batch_size", 1), ("part_size", 1), ("concurrency", 1), ("num_cpus", 1), ("num_gpus", 0)):
        value = getattr(arguments, name)
        if value is not None and not least <= value < math.inf:
            raise OptionsError(f"--{name.replace('_', '-')} must be a number from {least}, not {value}")
    texts = [("decoding", arguments.decoding)]
    texts += [(name, text) for name in OPTIONS for text in getattr(arguments, name) or ()]
    keep = tuple(dict.fromkeys(filter(None, arguments.keep.split(","))))
    if keep and not arguments.column:
        raise OptionsError("--keep needs --column: it names columns of Parquet files, and INPUT is a folder of images")
    if taken := [name for name in keep if name in (*SCHEMA.names, *(COLUMNS if arguments.features else ()))]:
        raise OptionsError(f"--keep {taken[0]}: OUTPUT already has a column of that name")
    if arguments.features and arguments.format != "parquet":
        raise OptionsError(f"--features needs --format parquet: {arguments.format} would be several times as large")
    decoding = read_decoding(texts)
    if arguments.features and isinstance(decoding, Beam) and not arguments.num_hypotheses:
        decoding = replace(decoding, num_hypotheses=min(HYPOTHESES, decoding.beam_size or HYPOTHESES))
    source, place = _absolute("INPUT", arguments.input), _absolute("OUTPUT", arguments.output)
    path = inside(source, place)
    if path == "" or (path is not None and arguments.column):
        raise OptionsError(f"OUTPUT {shown(place)} is inside INPUT and would be read as input: use another folder")
    return Job(
        input=source,
        output=Output(place, arguments.format),
        column=arguments.column,
        keep=keep,
        decoding=decoding,
        bundle=arguments.bundle and os.path.abspath(arguments.bundle),  # noqa: PTH100 - workers run elsewhere
        provider=arguments.provider,
        precision=arguments.precision,
        batch_size=arguments.batch_size,
        threads=int(arguments.num_cpus),
        max_pixels=arguments.max_pixels,
        formats=format_names(arguments.formats),
        features=arguments.features,
    )


def _absolute(name: str, place: str) -> str:
    """Returns an absolute path, because workers run in other folders; a URI as it is. Raises OptionsError."""
    if not place:
        raise OptionsError(f"{name} is empty: name a folder")
    if place.encode(errors="ignore").decode() != place:
        raise OptionsError(f"{name} {place!a} is not UTF-8, as paths must be: rename it")
    return place.rstrip("/") if "://" in place else os.path.abspath(place)  # noqa: PTH100 - Path resolves nothing here


def _record(job: Job, opened: Opened, arguments: argparse.Namespace, size: int) -> dict[str, Any]:
    """Returns what must be the same when the run is continued: all that affects the names or contents of its files."""
    decoding = {name: getattr(arguments, name) for name in OPTIONS if getattr(arguments, name)}
    return {
        "input": shown(job.input),
        "column": job.column,
        "keep": list(job.keep),
        "format": job.output.format,
        "part size": size,
        "model": opened.model,
        "precision": opened.precision,
        "max pixels": job.max_pixels,
        "formats": list(job.formats) or None,  # None as in the records of earlier releases
        "decoding": {"decoding": arguments.decoding, **decoding},
        "features": None,  # as in the records of earlier releases
    }


class Progress:
    """Shows how many images are done: one line in a terminal, or a line every few seconds in a log."""

    def __init__(self, total: int, stream: TextIO) -> None:
        self.total, self.stream, self.done, self.errors = total, stream, 0, 0
        self._terminal = stream.isatty()
        self._start = self._told = time.monotonic()

    def add(self, images: int, errors: int) -> None:
        """Counts the images of a part."""
        self.done += images
        self.errors += errors
        now = time.monotonic()
        if self._terminal or now - self._told >= TELLS:
            self._told = now
            rate = self.done / max(now - self._start, 1e-3)
            text = f"{self.done:,} of {self.total:,} images, {rate:.1f} a second, {self.errors:,} errors"
            print(f"\r{text}\x1b[K" if self._terminal else text, end="" if self._terminal else "\n", file=self.stream)
            self.stream.flush()

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_: object) -> None:
        if self._terminal and self.done:
            print(file=self.stream)


def _cause(error: RayTaskError) -> str:
    """Returns what went wrong in a worker, without the trace through Ray."""
    cause: BaseException = error
    while isinstance(cause, RayTaskError) and isinstance(cause.cause, BaseException):
        cause = cause.cause
    return one_line(cause)


def command_line() -> Parser:
    """Returns the parser of the command."""
    parser = Parser(
        prog="python -m serving.ray_data",
        description="Captions the images of a folder or of Parquet files, on this machine or a Ray cluster. The same "
        "command continues a run that was stopped.",
        epilog="Exit code: 0 all captioned, 1 some images have an error, 2 could not run or failed, 130 interrupted.",
        allow_abbrev=False,
    )
    option = parser.add_argument
    option("input", metavar="INPUT", help="folder of images, or Parquet with --column: a path, or a URI such as s3://")
    option("output", metavar="OUTPUT", help="folder for the captions: a path that all machines share, or a URI")
    option("--column", metavar="NAME", help="INPUT is Parquet; this column has the images' bytes or paths")
    option("--keep", default="", metavar="NAME[,NAME]", help="columns of the Parquet files to copy to OUTPUT")
    option("--format", choices=ENDINGS, default="parquet", help="format of OUTPUT (default: %(default)s)")
    text = "write what an index of photographs needs, too: features, checksums, sizes, times, three alternatives"
    option("--features", action="store_true", help=text)
    option("--address", metavar="HOST:PORT", help="a Ray cluster, or auto (default: RAY_ADDRESS, or this machine only)")
    option("--concurrency", type=int, metavar="N", help="most workers (default: as many as fit into the cluster)")
    option("--num-cpus", type=float, default=1, metavar="N", help="cores of a worker (default: %(default)s)")
    text = "GPUs of a worker; with 0.5 two workers share one (default: %(default)s)"
    option("--num-gpus", type=float, default=0, metavar="N", help=text)
    option("--batch-size", type=int, default=32, metavar="N", help="images in one batch (default: %(default)s)")
    option("--part-size", type=int, metavar="N", help="images in an output file; a part that is killed starts again")
    option("--max-pixels", type=int, metavar="N", help="refuse images with more pixels")
    text = "read only these formats, by Pillow's names (default: the usual formats of photographs)"
    option("--formats", metavar="NAME[,NAME]", help=text)
    option("--bundle", metavar="FOLDER", help="the model, at this path on every machine (default: the one that ships)")
    option("--provider", default="auto", metavar="NAME", help="what to run on (default: %(default)s)")
    option("--precision", default="auto", metavar="NAME", help="precision of the model (default: %(default)s)")
    ways = parser.add_argument_group("how words are chosen")
    ways.add_argument("--decoding", choices=DECODINGS, default=DEFAULT, help="way of decoding (default: %(default)s)")
    for name, each in OPTIONS.items():
        text = summary(each) + ("; may be repeated" if each.kind is tuple else "")
        ways.add_argument(f"--{name.replace('_', '-')}", action="append", metavar="X", help=text)
    return parser


if __name__ == "__main__":
    sys.exit(main())
