"""Finds the layers of a merge captioner among those of a Keras file, and lists what is not one. Builds nothing."""

from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor, nn

from export.checkpoints.keras_files import KerasFile, Layer

ACTIVATIONS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "relu": torch.relu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "elu": nn.functional.elu,
    "linear": nn.Identity(),
}
DENSE = ("image", "hidden", "output")  # in the order of the model
ARRAYS = {
    "embedding": ("embeddings",),
    "lstm": ("kernel", "recurrent_kernel", "bias"),
    "dense": ("kernel", "bias"),
}


def parts_of(file: KerasFile) -> tuple[dict[str, Layer], list[str]]:
    """Finds the five layers with weights by their number of arrays, the dense ones by their order."""
    kinds: dict[str, list[Layer]] = {name: [] for name in ("embedding", "dense", "lstm")}
    faults = []
    for layer in file.weighted:
        kind = {1: "embedding", 2: "dense", 3: "lstm"}.get(len(layer.arrays))
        if kind is None or (layer.kind and layer.kind.lower() != kind):
            faults.append(f"the layer {layer.name} {f'({layer.kind}) ' if layer.kind else ''}is unknown")
        else:
            kinds[kind].append(layer)
    for kind, wanted in (("embedding", 1), ("dense", 3), ("lstm", 1)):
        if len(kinds[kind]) != wanted:
            names = ", ".join(layer.name for layer in kinds[kind]) or "none"
            faults.append(f"{wanted} layers of the kind {kind} are wanted, but the model has {names}")
    parts = {"embedding": kinds["embedding"], "lstm": kinds["lstm"]} | {
        part: kinds["dense"][i : i + 1] for i, part in enumerate(DENSE)
    }
    return {part: layers[0] for part, layers in parts.items() if layers}, faults


def weights_of(parts: Mapping[str, Layer]) -> tuple[dict[str, np.ndarray], list[str]]:
    """Names the arrays, and lists those whose shapes do not go together."""
    found = {
        f"{part}.{name}": array
        for part, layer in parts.items()
        for name, array in zip(ARRAYS.get(part, ARRAYS["dense"]), layer.arrays, strict=True)
    }
    words, embedding = _size(found, "embedding.embeddings", 0), _size(found, "embedding.embeddings", 1)
    units, features = _size(found, "lstm.recurrent_kernel", 0), _size(found, "image.kernel", 0)
    hidden = _size(found, "hidden.kernel", 1)
    wanted = {
        "embedding.embeddings": (words, embedding),
        "lstm.kernel": (embedding, 4 * units),
        "lstm.recurrent_kernel": (units, 4 * units),
        "lstm.bias": (4 * units,),
        "image.kernel": (features, units),
        "image.bias": (units,),
        "hidden.kernel": (units, hidden),
        "hidden.bias": (hidden,),
        "output.kernel": (hidden, words),
        "output.bias": (words,),
    }
    return found, [
        f"{parts[part].name}'s {array_name} has the shape {array.shape}, not {wanted[name]}"
        for name, array in found.items()
        for part, array_name in (name.split("."),)
        if array.shape != wanted[name] and 0 not in wanted[name]
    ]


def _size(arrays: Mapping[str, np.ndarray], name: str, dimension: int) -> int:
    """A size, or 0 where the array is missing."""
    return arrays[name].shape[dimension] if name in arrays and arrays[name].ndim > dimension else 0


def settings_of(parts: Mapping[str, Layer], file: KerasFile) -> tuple[tuple[str, str, str], list[str]]:
    """Reads the activations of image, hidden layer and gates; lists settings that this decoder does not have."""
    old = not file.version.endswith("-tf") and file.version.startswith(("1.", "2.0.", "2.1.", "2.2."))
    usual_gate = "hard_sigmoid" if old else "sigmoid"
    if not file.configured:
        return ("relu", "relu", usual_gate), []
    set_by = {part: layer.settings for part, layer in parts.items()}
    asked = {part: str(set_by.get(part, {}).get("activation", "relu")) for part in ("image", "hidden")}
    gate = str(set_by.get("lstm", {}).get("recurrent_activation", usual_gate))
    gates = ("sigmoid",) if file.version.startswith("3.") else ("sigmoid", "hard_sigmoid")  # Keras 3 has another one
    faults = [
        f"{parts[part].name} has the activation {name}" for part, name in asked.items() if name not in ACTIVATIONS
    ]
    if gate not in gates:
        faults.append(f"the LSTM's gates have the activation {gate}")
    must_be = (
        ("embedding", "mask_zero", True, "so how the words so far are padded would change the captions"),
        ("lstm", "activation", "tanh", ""),
        ("lstm", "go_backwards", False, ""),
        ("lstm", "return_sequences", False, ""),
        ("output", "activation", "softmax", ""),
    )
    for part, name, value, why in must_be:
        if part in parts and (is_set := set_by[part].get(name, value)) != value:
            faults.append(f"{parts[part].name} has {name}={is_set!r}, not {value!r}{', ' if why else ''}{why}")
    if not any(layer.kind == "Add" for layer in file.layers):
        faults.append("no layer adds the image to the words")
    return (asked["image"], asked["hidden"], gate), faults
