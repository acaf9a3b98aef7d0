"""Another bundle: the one that ships, changed in words, reading and weights."""

import json
import shutil
from pathlib import Path

import numpy as np

from engine.bundle.bundle import MANIFEST_FILE, VOCABULARY_FILE, sha256, shipped_bundle
from engine.bundle.vocabulary import SPECIAL_WORDS

WEIGHTS = "decoder.weights"


def write_changed_bundle(folder: Path) -> Path:
    """Writes the bundle and returns its folder. Words tell which bundle wrote them, log-probabilities which read."""
    shutil.copytree(shipped_bundle(), folder)
    words = json.loads((folder / VOCABULARY_FILE).read_text(encoding="utf-8"))
    changed = [word if word in SPECIAL_WORDS else f"{word}x" for word in words]
    (folder / VOCABULARY_FILE).write_text(json.dumps(changed), encoding="utf-8")
    weights = np.fromfile(folder / WEIGHTS, np.float32)
    generator = np.random.default_rng(0)
    (weights * generator.uniform(0.97, 1.03, weights.shape).astype(np.float32)).tofile(folder / WEIGHTS)
    manifest = json.loads((folder / MANIFEST_FILE).read_text(encoding="utf-8"))
    manifest["name"] += " changed"
    manifest["image"]["resample"] = "nearest"
    manifest["data_sha256"] = {name: sha256(folder / name) for name in manifest["data_sha256"]}
    (folder / MANIFEST_FILE).write_text(json.dumps(manifest), encoding="utf-8")
    return folder
