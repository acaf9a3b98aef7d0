"""Weight files: the large initialisers of several graphs, each stored once. Knows nothing of what graphs compute."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

from onnx import ModelProto, TensorProto, numpy_helper
from onnx.external_data_helper import set_external_data

ALIGNMENT = 4096
"""Weights start at pages, so that a runtime can map the file instead of reading it."""

SMALLEST = 1024
"""Smaller initialisers (in bytes) stay in the graph, where shape inference finds them."""


def share_weights(models: Sequence[ModelProto], path: Path) -> None:
    """Moves the initialisers of all models to the file `path`; equal bytes are stored once.

    The models are changed in place and then refer to the file by its name: they belong into its folder. The same
    models always give the same bytes.
    """
    places: dict[bytes, int] = {}
    with path.open("wb") as file:
        for tensor in (tensor for model in models for tensor in model.graph.initializer):
            content = _content(tensor)
            if len(content) < SMALLEST:
                continue
            digest = hashlib.sha256(content).digest()
            if digest not in places:
                places[digest] = -file.tell() % ALIGNMENT + file.tell()
                file.write(b"\0" * (places[digest] - file.tell()) + content)
            tensor.raw_data = b""
            set_external_data(tensor, path.name, offset=places[digest], length=len(content))
            tensor.ClearField("raw_data")


def _content(tensor: TensorProto) -> bytes:
    """Returns a tensor's bytes as an external file holds them, and makes them its only form."""
    if not tensor.HasField("raw_data"):
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor), tensor.name))
    return tensor.raw_data
