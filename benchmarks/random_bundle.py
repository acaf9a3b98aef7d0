"""Makes bundles with random weights, to time encoders without available weights: `python -m benchmarks.random_bundle`.

The decoder has the sizes of the seed architecture and the words of the bundle that ships. Speed does not depend on the
weights; the captions make no sense.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks.photographs import SAMPLES
from engine.bundle.bundle import Bundle
from export.bundle import ExportOptions, export_bundle
from export.variants import VariantOptions
from training.files import write_json
from training.models.checkpoint import decoder_tensors, describe_run, save_tensors
from training.models.decoder import CaptionDecoder, DecoderConfig
from training.models.encoders import load_encoder


def random_bundle(encoder: str, folder: Path) -> Path:
    """Exports an encoder of random weights, fp32 and int8, and a random decoder below a folder; returns the bundle."""
    run, bundle = folder / "run", folder / "bundle"
    run.mkdir(parents=True)
    vocabulary = Bundle.load().vocabulary
    network = load_encoder(encoder, "random")
    torch.manual_seed(0)
    config = DecoderConfig(network.feature_size, len(vocabulary), vocabulary.pad_id)
    decoder = CaptionDecoder(config).eval()
    said = {"name": encoder, "weights": "random", "fingerprint": network.fingerprint}
    write_json(run / "config.json", describe_run(config, said, {"seed": 0}))
    vocabulary.save(run / "vocabulary.json")
    save_tensors(run / "best.safetensors", decoder_tensors(decoder), {})
    variants = VariantOptions(precisions=("fp32", "int8"), calibration=(SAMPLES,))
    export_bundle(run, bundle, ExportOptions(name=f"random-{encoder}", variants=variants))
    return bundle


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.random_bundle", description=__doc__)
    parser.add_argument("--encoder", default="inception_v3")
    parser.add_argument("folder", type=Path, help="new folder for the run and the bundle")
    options = parser.parse_args(arguments)
    print(random_bundle(options.encoder, options.folder))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
