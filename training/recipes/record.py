"""What a recipe's record says of data, weights, machine, versions, precision: no paths, no names of hosts.

Runs nothing.
"""

import hashlib
import json
import os
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

from engine.autotune.machine import processor
from training.data.datasets import SPLITS, open_dataset
from training.models.encoder_weights import read_weights

PACKAGES = ("numpy", "onnx", "onnxruntime", "onnxscript", "pycocoevalcap", "timm", "torch", "torchvision")


def describe_data(data: Path) -> dict[str, Any]:
    """Returns for each split how much there is and a fingerprint of names and captions. Raises DataError."""
    described = {}
    for split in SPLITS:
        dataset = open_dataset(data, split)
        content = json.dumps([[example.name, example.captions] for example in dataset.examples])
        described[split] = {
            "images": dataset.report.images,
            "captions": dataset.report.captions,
            "sha256": hashlib.sha256(content.encode()).hexdigest(),
        }
    return described


def describe_weights(weights: str) -> dict[str, str]:
    """Returns the SHA-256 of a file of encoder weights, nothing for "pretrained" and "random". Raises EncoderError."""
    if weights in ("pretrained", "random"):
        return {}
    read_weights(Path(weights))
    return {"encoder_weights_sha256": hashlib.sha256(Path(weights).read_bytes()).hexdigest()}


def precisions(run: Path) -> list[str]:
    """Returns what the epochs of a run were reckoned in, each once: more than one where it went on elsewhere."""
    history = json.loads((run / "history.json").read_text(encoding="utf-8"))
    return list(dict.fromkeys(epoch["precision"] for epoch in history))


def describe_machine(device: str, threads: int) -> dict[str, Any]:
    """Returns the processor and what of it the recipe uses."""
    return {
        "processor": processor(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "device": device,
        "threads": threads,
    }


def describe_versions() -> dict[str, str]:
    """Returns the versions of Python and of the packages that are installed."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found
