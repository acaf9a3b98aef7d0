"""Runs' folders with untrained decoders of any size, as training.train would leave them."""

from pathlib import Path
from typing import Any

import torch

from engine.bundle.vocabulary import SPECIAL_WORDS, Vocabulary
from export.bundle import ExportOptions
from training.files import write_json
from training.models.attention import AttentionConfig, AttentionDecoder
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


def attending_decoder(encoder: str, seed: int = 0) -> AttentionDecoder:
    """A decoder with attention, for the grid of an encoder."""
    torch.manual_seed(seed)
    height, width, feature_size = load_encoder(encoder, "random", grid=True).output_shape
    words: dict[str, Any] = {"vocabulary_size": len(WORDS), "pad_id": WORDS.pad_id, **SMALL}
    cells: dict[str, Any] = {"height": height, "width": width, "attention_size": 6, "value_size": 10}
    decoder = AttentionDecoder(AttentionConfig(feature_size=feature_size, **words, **cells)).eval()
    with torch.no_grad():
        decoder.embedding.weight.mul_(2)
        decoder.output.weight.mul_(8)
        for layer in (decoder.attention.to_gates, decoder.attention.to_logits):
            layer.weight.normal_(std=0.2)
    return decoder


def write_run(folder: Path, decoder: CaptionDecoder, encoder: str = ENCODER) -> Path:
    folder.mkdir(parents=True)
    network = load_encoder(encoder, "random", grid=isinstance(decoder, AttentionDecoder))
    described = {"name": encoder, "weights": "random", "fingerprint": network.fingerprint}
    training = {"seed": 7, "encoder_weights": str(folder / "somewhere.pth")}
    write_json(folder / "config.json", describe_run(decoder.config, described, training))
    WORDS.save(folder / "vocabulary.json")
    save_tensors(folder / "best.safetensors", decoder_tensors(decoder), {})
    return folder
