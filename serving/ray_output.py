"""The output folder of a bulk run: its record and its finished parts. A file in it is always complete. Knows no Ray."""

import base64
import contextlib
import io
import json
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow.fs import FileSelector, FileType

from engine import OptionsError
from serving.ray_places import locate, one_line, shown

RECORD = "_captions.json"  # describes the run; readers of Parquet skip names with _
UNFINISHED = "_unfinished"
SENTENCE = [("caption", pa.string()), ("confidence", pa.float64()), ("score", pa.float64()), ("log_prob", pa.float64())]
SCHEMA = pa.schema(
    [
        ("image", pa.string()),
        *SENTENCE,
        ("finished", pa.bool_()),
        ("alternatives", pa.list_(pa.struct(SENTENCE))),
        ("error", pa.string()),
    ]
)
"""The columns of the output. A row has a caption or an error; the other is null."""
UNREPEATED = "sha256", "features"  # in rows that have them, never twice the same, so that a dictionary is of no use
ENDINGS = {"parquet": ".parquet", "jsonl": ".jsonl"}


@dataclass(frozen=True, slots=True)
class Output:
    """A folder with one file for each finished part, in a format of ENDINGS. run: identifies the attempts to count."""

    place: str
    format: str
    run: str = field(default_factory=lambda: uuid.uuid4().hex)

    def begin(self, record: dict[str, Any]) -> None:
        """Writes the record, or compares it with the record of the run to continue. Raises OptionsError."""
        try:
            if (begun := self.record()) is not None:
                differ = [name for name in record if begun.get(name) != record[name]]
                if differ:
                    was, is_now = ({name: side.get(name) for name in differ} for side in (begun, record))
                    raise OptionsError(
                        f"{shown(self.place)} was begun with {_plain(was)}, and this run has {_plain(is_now)}: "
                        "use the same options, or another OUTPUT"
                    )
            else:
                self._put(RECORD, json.dumps(record, indent=1).encode())
        except (pa.ArrowException, OSError) as error:
            raise OptionsError(f"{shown(self.place)} cannot be written: {one_line(error)}") from error

    def record(self) -> dict[str, Any] | None:
        """Returns the record of the run that began this output, None if there is none. Raises OptionsError."""
        system, root = locate(self.place)
        try:
            there = system.get_file_info(root)
            if there.type == FileType.File:
                raise OptionsError(f"{shown(self.place)} is a file: OUTPUT must be a folder, new or begun before")
            if there.type == FileType.NotFound:
                return None
            if system.get_file_info(f"{root}/{RECORD}").type == FileType.NotFound:
                if any(info.base_name != UNFINISHED for info in system.get_file_info(FileSelector(root))):
                    raise OptionsError(f"{shown(self.place)} has other files in it: use a new or empty folder")
                return None
            with system.open_input_stream(f"{root}/{RECORD}") as stream:
                record: dict[str, Any] = json.loads(stream.read())
                return record
        except ValueError as error:
            if isinstance(error, OptionsError):
                raise
            raise OptionsError(f"{shown(self.place)}/{RECORD} is broken: use another OUTPUT") from error
        except (pa.ArrowException, OSError) as error:
            raise OptionsError(f"{shown(self.place)} cannot be read: {one_line(error)}") from error

    def done(self) -> set[str]:
        """Returns the names of the finished parts."""
        system, root = locate(self.place)
        infos = system.get_file_info(FileSelector(root, allow_not_found=True))
        return {
            PurePosixPath(info.path).stem
            for info in infos
            if info.size and info.base_name.startswith("part-") and info.path.endswith(ENDINGS[self.format])
        }

    def visible(self) -> bool:
        """Returns whether this machine sees the output that the run began."""
        system, root = locate(self.place)
        return bool(system.get_file_info(f"{root}/{RECORD}").type != FileType.NotFound)

    def count(self, name: str) -> tuple[int, int] | None:
        """Returns how many images a finished part has, and how many errors; None if it is not finished."""
        if not self._has(name):
            return None
        errors = self._column(name, "error")
        return len(errors), sum(error is not None for error in errors)

    def images(self, names: Iterable[str]) -> set[str]:
        """Returns the images of finished parts."""
        return {image for name in names for image in self._column(name, "image")}

    def write(
        self, name: str, rows: Sequence[dict[str, Any]], extra: pa.Table | None = None, schema: pa.Schema = SCHEMA
    ) -> None:
        """Writes a part in one step. extra: more columns. Writing a part again replaces it."""
        table = pa.Table.from_pylist(rows, schema=schema)
        if extra is not None:
            for kept in extra.schema:
                table = table.append_column(kept, extra.column(kept.name))
        if self.format == "jsonl":
            lines = (json.dumps(_as_json(row), ensure_ascii=False) + "\n" for row in table.to_pylist())
            data = "".join(lines).encode(errors="backslashreplace")
        else:
            buffer = io.BytesIO()
            pq.write_table(table, buffer, compression="zstd", use_dictionary=_repeated(table.schema))
            data = buffer.getvalue()
        self._put(name + ENDINGS[self.format], data)

    def attempt(self, name: str) -> int:
        """Records that a worker begins a part; returns how many began it before in this run."""
        system, root = locate(self.place)
        note = f"{self.run}.{name}"  # a byte for each
        earlier: int = system.get_file_info(f"{root}/{UNFINISHED}/{note}").size or 0
        self._write(note, bytes(earlier + 1))
        return earlier

    def end(self) -> None:
        """Deletes what is unfinished; another run at the same time makes what it needs again."""
        system, root = locate(self.place)
        with contextlib.suppress(OSError):  # another run writes there, or deletes it too
            system.delete_dir(f"{root}/{UNFINISHED}")

    def _has(self, name: str) -> bool:
        system, root = locate(self.place)
        return bool(system.get_file_info(f"{root}/{name}{ENDINGS[self.format]}").size)

    def _column(self, name: str, column: str) -> list[Any]:
        system, root = locate(self.place)
        with system.open_input_file(f"{root}/{name}{ENDINGS[self.format]}") as file:
            if self.format == "jsonl":
                return [json.loads(line)[column] for line in file.read().split(b"\n") if line]
            return list(pq.read_table(file, columns=[column]).column(column).to_pylist())

    def _put(self, name: str, data: bytes) -> None:
        """Writes elsewhere, then moves: if it is killed, there is no file of that name, or a complete one."""
        system, root = locate(self.place)
        try:
            system.move(self._write(uuid.uuid4().hex, data), f"{root}/{name}")
        except OSError:  # another run ended just now and deleted it
            system.move(self._write(uuid.uuid4().hex, data), f"{root}/{name}")

    def _write(self, name: str, data: bytes) -> str:
        """Writes a file into the folder of unfinished ones and returns its path."""
        system, root = locate(self.place)
        path = f"{root}/{UNFINISHED}/{name}"
        try:
            stream = system.open_output_stream(path)
        except FileNotFoundError:
            system.create_dir(f"{root}/{UNFINISHED}", recursive=True)
            stream = system.open_output_stream(path)
        with stream:
            stream.write(data)
        return path


def _repeated(schema: pa.Schema) -> bool | list[str]:
    """Returns the columns that a dictionary makes smaller, as Parquet names them; True for all."""
    if not set(UNREPEATED) & set(schema.names):
        return True
    fields = [f"alternatives.list.element.{name}" for name, _ in SENTENCE]
    return [*(name for name in schema.names if name not in UNREPEATED), *fields]


def _plain(record: dict[str, Any]) -> str:
    return ", ".join(f"{name} {json.dumps(value)}" for name, value in record.items())


def _as_json(row: dict[str, Any]) -> Any:
    """Returns a row with values that JSON has, at any depth: null for NaN and infinity, base64 for bytes."""
    return json.loads(json.dumps(row, default=_text), parse_constant=lambda _: None)


def _text(value: object) -> str:
    return base64.b64encode(value).decode() if isinstance(value, bytes) else str(value)
