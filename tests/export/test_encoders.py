"""Encoders that learned with their decoder: what is exported is what was trained."""

from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
import torch

from engine.bundle.bundle import Bundle
from export.bundle import export_bundle
from export.errors import ExportError
from tests.export.runs import OPTIONS, WORDS, small_decoder
from training.files import write_json
from training.models.checkpoint import ENCODER, decoder_tensors, describe_run, save_tensors
from training.models.encoders import load_encoder
from training.models.finetune import FineTuned, split

NAME = "test_efficientnet"


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (4, 160, 160, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run as training.train --finetune-encoder leaves it; its last checkpoint is of another epoch than its best."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    folder.mkdir()
    encoder = load_encoder(NAME, "random")
    plain = small_decoder(feature_size=encoder.feature_size)
    model = FineTuned(plain.config, split(encoder, "2")[1], encoder.network.state_dict())
    model.load_state_dict(plain.state_dict(), strict=False)
    with torch.no_grad():
        for parameter in model.tail.parameters():
            parameter.mul_(1.25)
    described = {"name": NAME, "weights": ENCODER, "fingerprint": encoder.fingerprint}
    write_json(folder / "config.json", describe_run(model.config, described, {"encoder_weights": "random"}))
    WORDS.save(folder / "vocabulary.json")
    save_tensors(folder / "best.safetensors", decoder_tensors(model), {"encoder": model.save_encoder(folder)})
    save_tensors(folder / "last.safetensors", decoder_tensors(model), {})
    return folder


def encode(graph: bytes | Path, pixels: np.ndarray) -> np.ndarray:
    features: np.ndarray = ort.InferenceSession(graph, providers=["CPUExecutionProvider"]).run(
        None, {"pixels": pixels}
    )[0]
    return features


def test_the_encoder_that_learned_is_exported_and_not_the_one_it_was(
    quick: pytest.MonkeyPatch, run: Path, pixels: np.ndarray, tmp_path: Path
) -> None:
    assert all(check.passed for check in export_bundle(run, tmp_path / "bundle", OPTIONS))
    bundle = Bundle.load(tmp_path / "bundle")
    with torch.inference_mode():
        learned = load_encoder(NAME, str(run / ENCODER))
        expected, before = learned(torch.from_numpy(pixels)), load_encoder(NAME, "random")(torch.from_numpy(pixels))
    found = encode(bundle.path / bundle.graph("encoder").file, pixels)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    assert np.abs(found - before.numpy()).max() > 0.1 * np.abs(found).max()
    said = bundle.manifest.provenance["encoder"]
    assert said["fingerprint"] == learned.fingerprint
    assert said["source"].startswith("learned with the decoder")


def test_a_decoder_is_not_exported_with_an_encoder_of_another_epoch(run: Path, tmp_path: Path) -> None:
    from dataclasses import replace

    with pytest.raises(ExportError, match="was trained with other encoder weights"):
        export_bundle(run, tmp_path / "bundle", replace(OPTIONS, checkpoint="last"))
    assert not (tmp_path / "bundle").exists()
