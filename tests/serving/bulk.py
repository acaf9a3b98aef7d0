"""Twenty drawn photographs and tables of them, as bulk captioning reads them, and what it writes."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from serving.ray_output import Output
from serving.ray_parts import Part

NAMES = [f"{i:02d}.jpg" if i % 3 else f"deep/er/{i:02d}.jpg" for i in range(20)]


def rows(output: Output, name: str) -> list[dict[str, Any]]:
    file = Path(output.place) / f"{name}.{output.format}"
    if output.format == "jsonl":
        return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    found: list[dict[str, Any]] = pq.read_table(file).to_pylist()
    return found


def finish(output: Output, part: Part) -> None:
    output.write(part.name, [{"image": file, "caption": "x"} for file in part.files])


def as_table(folder: Path, file: Path, **columns: pa.Array) -> None:
    """Writes a Parquet file in row groups of seven."""
    images = pa.array([(folder / name).read_bytes() for name in NAMES])
    table = pa.table({"picture": images, "path": [f"photos/{name}" for name in NAMES], **columns})
    pq.write_table(table, file, row_group_size=7)
