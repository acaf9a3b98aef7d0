"""What a recipe's record says of data, versions and machine: no paths, no names of hosts. Runs nothing."""

import hashlib
import json
import os
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

from engine.machine import processor
from training.data import SPLITS, open_dataset

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
