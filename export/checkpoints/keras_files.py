"""Weight files of Keras: layers in order, with their arrays and, where the file has them, their settings.

Reads HDF5 as Keras 2 and 3 write it (whole models and weights alone), weights of Keras 3 (.weights.h5) and its .keras
archives. Runs no code of a file: no lambda layers, no custom objects. Needs the package h5py, and not Keras.
"""

import io
import json
import re
import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from export.errors import ExportError


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer that has weights, or settings."""

    name: str
    arrays: tuple[np.ndarray, ...] = ()
    kind: str = ""  # Keras's class, "" where the file does not say
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class KerasFile:
    """The layers of a model in the model's order.

    version: of the Keras that wrote it, "" where the file does not say. named: whether layers have their own names, and
    not their class with a number.
    """

    layers: tuple[Layer, ...]
    version: str
    named: bool

    @property
    def weighted(self) -> list[Layer]:
        """The layers with weights."""
        return [layer for layer in self.layers if layer.arrays]

    @property
    def configured(self) -> bool:
        """Whether the file has the settings of its layers."""
        return any(layer.kind for layer in self.layers)


def read_keras(path: Path) -> KerasFile:
    """Reads a file of weights. Raises ExportError in one sentence."""
    try:
        import h5py
    except ModuleNotFoundError:
        raise ExportError(
            "Keras's files need the package h5py: install it with python -m pip install 'captioning-engine[keras]'"
        ) from None
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                config = json.loads(archive.read("config.json"))
                content = io.BytesIO(archive.read("model.weights.h5"))
                version = json.loads(archive.read("metadata.json")).get("keras_version", "")
            with h5py.File(content, "r") as file:
                entries = config["config"]["layers"]
                own = dict(zip(_file_names(entries), (entry["config"]["name"] for entry in entries), strict=True))
                arrays = {own.get(name, name): found for name, found in _numbered(file).items()}
                return KerasFile(_configured(config, arrays), version, named=True)
        with h5py.File(path, "r") as file:
            model = file.get("model_weights", file)
            named = "layer_names" in model.attrs or "layer_names0" in model.attrs
            arrays = _named(model) if named else _numbered(file)
            config = json.loads(_text(file.attrs["model_config"])) if "model_config" in file.attrs else None
            version = _text(file.attrs.get("keras_version", model.attrs.get("keras_version", "")))
            return KerasFile(_configured(config, arrays), version, named)
    except OSError as error:
        raise ExportError(f"{path} cannot be read as a file of Keras: {error}") from error
    except (KeyError, ValueError, TypeError, AttributeError, zipfile.BadZipFile) as error:
        raise ExportError(
            f"{path} does not have the layout of Keras's files ({type(error).__name__}: {error})"
        ) from error


def natural(name: str) -> list[tuple[int, str]]:
    """A key that sorts conv2d, conv2d_2, conv2d_10 in this order."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]


def _configured(config: Any, arrays: Mapping[str, tuple[np.ndarray, ...]]) -> tuple[Layer, ...]:
    """Joins settings and arrays; in the order of the settings, if there are any."""
    if config is None:
        return tuple(Layer(name, found) for name, found in arrays.items())
    settings = {entry["config"]["name"]: entry for entry in config["config"]["layers"]}
    unknown = [Layer(name, found) for name, found in arrays.items() if name not in settings]
    known = [
        Layer(name, arrays.get(name, ()), entry["class_name"], entry["config"]) for name, entry in settings.items()
    ]
    return (*known, *unknown)


def _file_names(entries: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """The names that Keras 3 gives layers in an archive's weights: their class, and a number from the second on."""
    counts: Counter[str] = Counter()
    for entry in entries:
        words = re.sub(r"([a-z])([A-Z])", r"\1_\2", re.sub(r"(.)([A-Z][a-z0-9]+)", r"\1_\2", entry["class_name"]))
        name = words.lower()
        yield f"{name}_{counts[name]}" if counts[name] else name
        counts[name] += 1


def _named(model: Any) -> dict[str, tuple[np.ndarray, ...]]:
    """Keras 2's layout: attributes list the layers and each layer's arrays."""
    return {
        layer: tuple(np.asarray(model[layer][name]) for name in _list(model[layer], "weight_names"))
        for layer in _list(model, "layer_names")
    }


def _list(group: Any, name: str) -> list[str]:
    """A list of names, which is cut into numbered pieces where it is too long for one attribute."""
    pieces = (
        [name] if name in group.attrs else sorted((key for key in group.attrs if key.startswith(name)), key=natural)
    )
    return [_text(entry) for piece in pieces for entry in group.attrs[piece]]


def _numbered(file: Any) -> dict[str, tuple[np.ndarray, ...]]:
    """Keras 3's layout: layers/NAME/vars/0 and, where a layer contains a cell, layers/NAME/cell/vars/0."""
    layers = file["layers"] if "layers" in file else file["_layer_checkpoint_dependencies"]
    found = {}
    for name in sorted(layers, key=natural):
        group = layers[name].get("cell", layers[name])
        held = group.get("vars", {})
        found[name] = tuple(np.asarray(held[key]) for key in sorted(held, key=natural))
    return {name: arrays for name, arrays in found.items() if arrays}


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
