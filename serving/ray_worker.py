"""One worker of a bulk run: reads the images of a part, captions them, writes the part. Knows nothing of other parts.

Ray runs it in each process of the pool; it works without Ray too.
"""

import errno
import hashlib
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyarrow.fs import FileSystem, FileType, LocalFileSystem

from engine import Beam, Caption, Captioner, EngineError, Greedy, ImageError, RuntimeOptions, Sample
from serving.formats import as_argument
from serving.ray_output import Output
from serving.ray_parts import Part, image_type, is_bytes, steps
from serving.ray_places import ESCAPED, locate, one_line, shown
from serving.sentence import sentence

FETCHES = 16  # images that are fetched at the same time, to hide the latency of an object store
MAX_BYTES = 256 * 1024**2  # of an image file
ATTEMPTS = 5  # for one part; Ray would repeat it for ever


@dataclass(frozen=True, slots=True)
class Job:
    """How to caption the parts. column: where a Parquet input has its images; None for a folder of files.

    formats: Pillow's names of the formats to read; () for the usual ones of photographs.
    """

    input: str
    output: Output
    column: str | None
    keep: tuple[str, ...]
    decoding: Greedy | Beam | Sample
    bundle: str | None
    provider: str
    precision: str
    batch_size: int
    threads: int
    max_pixels: int | None
    formats: tuple[str, ...] = ()

    def captioner(self) -> Captioner:
        """Opens the captioner of the job. Raises EngineError."""
        limits: dict[str, Any] = {} if self.max_pixels is None else {"max_pixels": self.max_pixels}
        return Captioner(
            self.bundle,
            provider=self.provider,
            precision=self.precision,
            batch_size=self.batch_size,
            runtime=RuntimeOptions(threads=self.threads),
            **limits,
            **as_argument(self.formats),
        )


@dataclass(frozen=True, slots=True)
class Opened:
    """What a worker runs, or in `fault` why it cannot."""

    provider: str = ""
    precision: str = ""
    model: str = ""
    fault: str = ""


def try_out(job: Job) -> Opened:
    """Captions a grey image, so that an error of bundle, provider, decoding or device shows before the run."""
    try:
        captioner = job.captioner()
        captioner.caption([np.full((8, 8, 3), 128, np.uint8)], job.decoding)
    except (EngineError, OSError) as error:
        return Opened(fault=one_line(error))
    manifest = (captioner.bundle.path / "manifest.json").read_bytes()  # with the checksums of all other files
    model = f"{captioner.bundle.manifest.name} {hashlib.sha256(manifest).hexdigest()[:16]}"
    return Opened(captioner.provider, captioner.precision, model)


class Worker:
    """Captions one part after another."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._system, self._root = locate(job.input)
        self._captioner = job.captioner()
        self._pool = ThreadPoolExecutor(FETCHES, "fetch")

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Captions parts and returns their names and numbers of images and errors, in the form that Ray Data needs."""
        done = []
        for row in batch.to_pylist():
            part = Part(row["name"], tuple(row["files"]), row["table"], row["start"], row["stop"])
            images, errors = self.caption(part)
            done.append({"name": part.name, "images": images, "errors": errors})
        return pa.Table.from_pylist(done)

    def caption(self, part: Part) -> tuple[int, int]:
        """Captions a part unless it is finished already. Returns how many images it has, and how many errors.

        Raises OSError if this machine cannot reach input or output.
        """
        self._require_both()
        if (counted := self._job.output.count(part.name)) is not None:
            return counted  # by a worker that died before it could report it
        if (earlier := self._job.output.attempt(part.name)) >= ATTEMPTS:
            whole = f"{part.table} from row {part.start}" if part.table else f"{part.files[0]} to {part.files[-1]}"
            raise OSError(
                f"{earlier} workers died or failed at the same {len(part)} images, {whole}: one of these images may "
                "crash the worker, so remove it; if the machines were at fault, run the same command again"
            )
        names: list[str] = []
        kept: list[pa.RecordBatch] = []
        images = self._rows(part, names, kept) if self._job.column else self._files(part, names)
        captions = self._captioner.iter_captions(images, self._job.decoding, on_error="return")
        rows = [as_row(result) for result in captions]
        rows = [{"image": name, **row} for name, row in zip(names, rows, strict=True)]
        extra = pa.Table.from_batches(kept) if self._job.keep else None
        self._job.output.write(part.name, rows, extra)
        return len(rows), sum(row["error"] is not None for row in rows)

    def _files(self, part: Part, names: list[str]) -> Iterator[Any]:
        names += part.files
        return self._fetched((self._system, f"{self._root}/{file}") for file in part.files)

    def _rows(self, part: Part, names: list[str], kept: list[pa.RecordBatch]) -> Iterator[Any]:
        """Yields the images in the rows of a Parquet file; appends to names and kept columns as it reads."""
        path = f"{self._root}/{part.table}" if part.table else self._root
        assert self._job.column
        with self._system.open_input_file(path) as file:
            table = pq.ParquetFile(file)
            direct = is_bytes(image_type(table.schema_arrow, self._job.column))
            for row, batch in _batches(table, part, [self._job.column, *self._job.keep]):
                values = _values(batch, self._job.column)
                kept.append(batch.select(list(self._job.keep)))
                if direct:
                    names += [f"{part.table}#{row + i}" for i in range(len(values))]
                    yield from (_Unread("the value is null") if value is None else value for value in values)
                else:
                    names += [value or f"{part.table}#{row + i}" for i, value in enumerate(values)]
                    folder = path.rpartition("/")[0]
                    yield from self._fetched((self._system, _joined(folder, value)) for value in values)

    def _fetched(self, places: Iterator[tuple[FileSystem, str | None]]) -> Iterator[Any]:
        """Yields the bytes of files, fetching some in advance."""
        ahead: deque[Future[bytes | _Unread]] = deque()
        for system, path in places:
            ahead.append(self._pool.submit(_fetch, system, path))
            if len(ahead) > 2 * FETCHES:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()

    def _require_both(self) -> None:
        """Raises OSError if a folder is not shared: the part would be full of errors, or nobody would find it."""
        if self._system.get_file_info(self._root).type == FileType.NotFound:
            place = shown(self._job.input)
            raise OSError(f"a worker does not see {place}: use an object store, or a folder that is on every machine")
        if not self._job.output.visible():
            place = shown(self._job.output.place)
            raise OSError(f"a worker does not see {place}: use an object store, or a folder that all machines share")


def as_row(result: Caption | ImageError) -> dict[str, Any]:
    """Returns the columns of a result, except for its image."""
    if isinstance(result, ImageError):
        return {"error": result.explanation}
    others = [sentence(one) for one in result.alternatives]
    return {**sentence(result), "finished": result.finished, "alternatives": others, "error": None}


class _Unread:
    """An image that could not be fetched: looks like a file, and raises the reason when the captioner reads it."""

    def __init__(self, why: str | Exception) -> None:
        if not isinstance(why, OSError) or why.errno is None:  # without a number it would count as broken content
            why = OSError(errno.EIO, why if isinstance(why, str) else one_line(why))
        self._why = why

    def read(self) -> bytes:
        """Raises the error of fetching."""
        raise self._why


def _fetch(system: FileSystem, path: str | None) -> bytes | _Unread:
    try:
        if path is None:
            return _Unread("the value is null")
        if "://" in path:
            system, path = locate(path)
        if isinstance(system, LocalFileSystem) and system.get_file_info(path).type == FileType.Unknown:
            return _Unread("it is not a regular file")  # a pipe may never end
        with system.open_input_stream(path) as stream:
            content: bytes = stream.read(MAX_BYTES + 1)
    except Exception as error:  # whatever it is, only this image is affected
        unnamed = isinstance(error, FileNotFoundError) and path is not None and ESCAPED.search(path)
        return _Unread("its name is not UTF-8: rename it" if unnamed else error)
    return _Unread(f"it has more than {MAX_BYTES:,} bytes") if len(content) > MAX_BYTES else content


def _joined(folder: str, path: str | None) -> str | None:
    """Returns the place of a path in a Parquet file: relative to the file's folder, unless it is a URI or absolute."""
    return path if path is None or "://" in path or path.startswith("/") else f"{folder}/{path}"


def _batches(table: pq.ParquetFile, part: Part, columns: list[str]) -> Iterator[tuple[int, pa.RecordBatch]]:
    """Yields the rows of a part with the number of the first; reads only the row groups that have any of them."""
    first, groups = 0, []
    begins = None
    for group in range(table.num_row_groups):
        count = table.metadata.row_group(group).num_rows
        if first < part.stop and first + count > part.start:
            begins = first if begins is None else begins
            groups.append(group)
        first += count
    row = begins or 0
    for batch in table.iter_batches(batch_size=64, row_groups=groups, columns=columns, use_threads=False):
        start, stop = max(part.start - row, 0), min(part.stop - row, len(batch))
        if start < stop:
            yield row + start, batch.slice(start, stop - start)
        row += len(batch)
        if row >= part.stop:
            return


def _values(batch: pa.RecordBatch, column: str) -> list[Any]:
    name, *fields = steps(batch.schema, column)
    values = batch.column(name)
    return list((pc.struct_field(values, fields) if fields else values).to_pylist())
