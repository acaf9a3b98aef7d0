"""Weight files: the large initialisers of several graphs, each stored once. Knows nothing of what graphs compute."""

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path

import onnx
from onnx import ModelProto, TensorProto, numpy_helper
from onnx.external_data_helper import set_external_data

ALIGNMENT = 4096
"""Weights start at page boundaries, so that a runtime can map the file instead of reading it."""

SMALLEST = 1024
"""Smaller initialisers (in bytes) stay in the graph, where shape inference finds them."""


def share_weights(models: Sequence[ModelProto], path: Path, beside: Iterable[Path] = ()) -> None:
    """Moves the initialisers of all models to the file `path`; equal bytes are stored once.

    The models are changed in place and refer to the file by name, so they must be saved in its folder. The same models
    always give the same bytes. beside: graphs in that folder, whose weight files are reused instead of stored again.
    """
    places = _places(beside)
    with path.open("wb") as file:
        for tensor in (tensor for model in models for tensor in model.graph.initializer):
            content = _content(tensor)
            if len(content) < SMALLEST:
                continue
            digest = hashlib.sha256(content).digest()
            if digest not in places:
                places[digest] = (path.name, -file.tell() % ALIGNMENT + file.tell())
                file.write(b"\0" * (places[digest][1] - file.tell()) + content)
            name, offset = places[digest]
            tensor.raw_data = b""
            set_external_data(tensor, name, offset=offset, length=len(content))
            tensor.ClearField("raw_data")


def _places(graphs: Iterable[Path]) -> dict[bytes, tuple[str, int]]:
    """Returns file and offset of each tensor in the weight files of some graphs, by the SHA-256 of its bytes."""
    places = {}
    for path in graphs:
        for tensor in onnx.load(path, load_external_data=False).graph.initializer:
            entries = {entry.key: entry.value for entry in tensor.external_data}
            if entries:
                with (path.parent / entries["location"]).open("rb") as file:
                    file.seek(int(entries["offset"]))
                    digest = hashlib.sha256(file.read(int(entries["length"]))).digest()
                places[digest] = (entries["location"], int(entries["offset"]))
    return places


def _content(tensor: TensorProto) -> bytes:
    """Converts a tensor to raw bytes, as in an external file, and returns them."""
    if not tensor.HasField("raw_data"):
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor), tensor.name))
    return tensor.raw_data
