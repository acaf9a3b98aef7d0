"""One worker of a bulk run: reads the images of a part, captions them, writes the part. Knows nothing of other parts.

Ray runs it in each process of the pool; it works without Ray too.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from posixpath import dirname, join
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyarrow.fs import FileType

from engine import Beam, Caption, Captioner, EngineError, Greedy, ImageError, RuntimeOptions, Sample
from serving.formats import as_argument
from serving.ray_features import Source, as_columns
from serving.ray_fetch import Fetched, Fetcher
from serving.ray_output import SCHEMA, Output
from serving.ray_parts import Part, image_type, is_bytes, steps
from serving.ray_places import locate, one_line, shown
from serving.sentence import sentence

ATTEMPTS = 5  # for one part; Ray would repeat it for ever


NO_SOURCE = Source("", "", ())


@dataclass(frozen=True, slots=True)
class Job:
    """How to caption the parts. column: where a Parquet input has its images; None for a folder of files.

    formats: Pillow's names of the formats to read; () for the usual ones of photographs. features: whether rows have
    what an index needs besides captions.
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
    features: bool = False

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
    source: Source = NO_SOURCE
    fault: str = ""

    @property
    def model(self) -> str:
        """The bundle's name and the beginning of its manifest's checksum."""
        return f"{self.source.name} {self.source.sha256[:16]}"


def try_out(job: Job) -> Opened:
    """Captions a grey image, so that an error of bundle, provider, decoding or device shows before the run."""
    try:
        captioner = job.captioner()
        captioner.caption([np.full((8, 8, 3), 128, np.uint8)], job.decoding)
    except (EngineError, OSError) as error:
        return Opened(fault=one_line(error))
    return Opened(captioner.provider, captioner.precision, Source.of(captioner))


class Worker:
    """Captions one part after another."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._system, self._root = locate(job.input)
        self._captioner = job.captioner()
        self._schema = Source.of(self._captioner).schema() if job.features else SCHEMA
        self._fetcher = Fetcher(identified=job.features)

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
        seen = _Seen()
        images = self._rows(part, seen) if self._job.column else self._files(part, seen)
        captions = self._captioner.iter_captions(
            images, self._job.decoding, on_error="return", features=self._job.features
        )
        rows = [self._as_row(seen, i, result) for i, result in enumerate(captions)]
        extra = pa.Table.from_batches(seen.kept) if self._job.keep else None
        self._job.output.write(part.name, rows, extra, self._schema)
        return len(rows), sum(row["error"] is not None for row in rows)

    def _as_row(self, seen: "_Seen", i: int, result: Caption | ImageError) -> dict[str, Any]:
        row = {"image": seen.names[i], **as_row(result)}
        if self._job.features:
            row |= as_columns(seen.paths[i], seen.facts[i], None if isinstance(result, ImageError) else result.features)
        return row

    def _files(self, part: Part, seen: "_Seen") -> Iterator[Any]:
        seen.names += part.files
        seen.paths += part.files
        return seen.noted(self._fetcher.fetched((self._system, f"{self._root}/{file}") for file in part.files))

    def _rows(self, part: Part, seen: "_Seen") -> Iterator[Any]:
        """Yields the images in the rows of a Parquet file; notes names and kept columns as it reads."""
        path = f"{self._root}/{part.table}" if part.table else self._root
        assert self._job.column
        with self._system.open_input_file(path) as file:
            table = pq.ParquetFile(file)
            direct = is_bytes(image_type(table.schema_arrow, self._job.column))
            for row, batch in _batches(table, part, [self._job.column, *self._job.keep]):
                values = _values(batch, self._job.column)
                seen.kept.append(batch.select(list(self._job.keep)))
                numbered = [f"{part.table}#{row + i}" for i in range(len(values))]
                if direct:
                    seen.names += numbered
                    seen.paths += [None] * len(values)
                    yield from seen.noted(Fetched.of(value, identified=self._job.features) for value in values)
                else:
                    seen.names += [value or name for value, name in zip(values, numbered, strict=True)]
                    seen.paths += [_joined(dirname(part.table), value) for value in values]
                    folder = path.rpartition("/")[0] or "/"
                    places = ((self._system, _joined(folder, value)) for value in values)
                    yield from seen.noted(self._fetcher.fetched(places))

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


@dataclass(slots=True)
class _Seen:
    """What is known of the images that were read, in order; the captioner reads some batches ahead."""

    names: list[str] = field(default_factory=list)
    paths: list[str | None] = field(default_factory=list)
    facts: list[Fetched] = field(default_factory=list)
    kept: list[pa.RecordBatch] = field(default_factory=list)

    def noted(self, images: Iterable[Fetched]) -> Iterator[Any]:
        """Yields images, and notes what is known of them besides their bytes."""
        for each in images:
            self.facts.append(replace(each, image=b""))
            yield each.image


def _joined(folder: str, path: str | None) -> str | None:
    """Returns the place of a path in a Parquet file: relative to the file's folder, unless it is a URI or absolute."""
    return path if path is None or "://" in path else join(folder, path)


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
