"""Runs' folders with untrained decoders of any size, as training.train would leave them."""

from pathlib import Path

import torch

from engine.bundle.vocabulary import SPECIAL_WORDS, Vocabulary
from export.bundle import ExportOptions
from training.files import write_json
from training.models.checkpoint import decoder_tensors, describe_run, save_tensors
from training.models.decoder import CaptionDecoder, DecoderConfig
from training.models.encoders import load_encoder

ENCODER = "test_resnet"
SCORES = {"bleu_4": 17.5}
OPTIONS = ExportOptions(quality=SCORES, name="mine", defaults={"max_length": 12})
WORDS = Vocabulary(tuple(sorted({*SPECIAL_WORDS, *(f"word{i}" for i in range(300))})))
SMALL = {"bottleneck": 12, "units": 24, "embedding": 16, "logit_hidden": 16}


def small_decoder(seed: int = 0, feature_size: int = 96, tied: bool = False) -> CaptionDecoder:
    torch.manual_seed(seed)
    config = DecoderConfig(feature_size, len(WORDS), WORDS.pad_id, tied=tied, **SMALL)
    decoder = CaptionDecoder(config).eval()
    with torch.no_grad():  # spread the words, so that sentences vary and end
        decoder.embedding.weight.mul_(2)
        decoder.output.weight.mul_(8)
    return decoder


def write_run(folder: Path, decoder: CaptionDecoder, encoder: str = ENCODER) -> Path:
    folder.mkdir(parents=True)
    network = load_encoder(encoder, "random")
    described = {"name": encoder, "weights": "random", "fingerprint": network.fingerprint}
    training = {"seed": 7, "encoder_weights": str(folder / "somewhere.pth")}
    write_json(folder / "config.json", describe_run(decoder.config, described, training))
    WORDS.save(folder / "vocabulary.json")
    save_tensors(folder / "best.safetensors", decoder_tensors(decoder), {})
    return folder
