"""Files as Keras writes them, made with h5py alone."""

import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

h5py: Any = pytest.importorskip("h5py", reason="the extra keras is not installed")

Arrays = Mapping[str, np.ndarray]


def write_model(path: Path, arrays: Arrays, layers: list[dict[str, Any]] | None, version: str = "2.15.0") -> None:
    """A whole model of Keras 2 (model.save), or without layers only its weights (model.save_weights)."""
    with h5py.File(path, "w") as file:
        model = file
        if layers is not None:
            file.attrs["model_config"] = json.dumps({"class_name": "Functional", "config": {"layers": layers}})
            model = file.create_group("model_weights")
        (file if layers is not None else model).attrs["keras_version"] = version.encode()
        names = [entry["config"]["name"] for entry in layers or ()] or _layers(arrays)
        model.attrs["layer_names"] = [name.encode() for name in names]
        for name in names:
            group = model.create_group(name)
            held = [full for full in arrays if full.startswith(f"{name}/")]
            group.attrs["weight_names"] = [_inner(full).encode() for full in held]
            for full in held:
                group[_inner(full)] = arrays[full]


def write_weights_of_keras_3(path: Path, arrays: Arrays) -> None:
    """The layout of .weights.h5: numbered arrays, those of an LSTM in its cell."""
    with h5py.File(path, "w") as file:
        for name in _layers(arrays):
            held = [array for full, array in arrays.items() if full.startswith(f"{name}/")]
            group = file.create_group(f"layers/{name}/cell/vars" if name.startswith("lstm") else f"layers/{name}/vars")
            for i, array in enumerate(held):
                group[str(i)] = array
        file.create_group("layers/add/vars")


def write_archive(path: Path, arrays: Arrays, layers: list[dict[str, Any]]) -> None:
    """Keras 3's .keras."""
    weights = path.with_name("model.weights.h5")
    # the session's numbers are in the names of the settings, and not in those of the weights
    layers = [{**entry, "config": {**entry["config"], "name": f"{entry['config']['name']}_41"}} for entry in layers]
    write_weights_of_keras_3(weights, arrays)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("metadata.json", json.dumps({"keras_version": "3.5.0"}))
        archive.writestr("config.json", json.dumps({"class_name": "Functional", "config": {"layers": layers}}))
        archive.write(weights, "model.weights.h5")


def merge_layers(**changes: dict[str, Any]) -> list[dict[str, Any]]:
    """The settings of the notebook's model; changes: to the settings of layers, by name."""
    settings: dict[str, tuple[str, dict[str, Any]]] = {
        "input_2": ("InputLayer", {}),
        "input_1": ("InputLayer", {}),
        "embedding": ("Embedding", {"mask_zero": True}),
        "dropout": ("Dropout", {"rate": 0.5}),
        "dropout_1": ("Dropout", {"rate": 0.5}),
        "dense": ("Dense", {"activation": "relu"}),
        "lstm": ("LSTM", {"activation": "tanh", "recurrent_activation": "sigmoid"}),
        "add": ("Add", {}),
        "dense_1": ("Dense", {"activation": "relu"}),
        "dense_2": ("Dense", {"activation": "softmax"}),
    }
    return [
        {"class_name": kind, "config": {"name": name, **config, **changes.get(name, {})}}
        for name, (kind, config) in settings.items()
    ]


def _layers(arrays: Arrays) -> list[str]:
    return list(dict.fromkeys(full.partition("/")[0] for full in arrays))


def _inner(full: str) -> str:
    layer, _, name = full.partition("/")
    return f"{layer}/lstm_cell/{name}:0" if layer.startswith("lstm") else f"{full}:0"
