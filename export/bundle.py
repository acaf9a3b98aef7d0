"""Exports training runs as bundles. Knows nothing of commands."""

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch

from export import record
from export.errors import ExportError
from export.modules import ExportOptions, require_writable, write_bundle
from export.verify import Check
from training.models.attention import AttentionDecoder
from training.models.checkpoint import Checkpoint, load_checkpoint
from training.models.encoders import Encoder, load_encoder

__all__ = ["ExportOptions", "export_bundle"]


def export_bundle(
    folder: Path,
    output: Path,
    options: ExportOptions = ExportOptions(),  # noqa: B008 - frozen
    *,
    encoder_weights: str | None = None,
    overwrite: bool = False,
) -> tuple[Check, ...]:
    """Exports the run in `folder` to the bundle `output`, verifies it and returns the checks.

    encoder_weights: as for load_encoder; None takes those of the run. Raises ExportError before any work if the
    output cannot be written as requested, ParityError if a graph exceeds its tolerance, and what load_checkpoint and
    load_encoder raise. On any error `output` stays as it was.
    """
    require_writable(output, options, overwrite=overwrite)
    checkpoint = load_checkpoint(folder, options.checkpoint)
    grid = isinstance(checkpoint.decoder, AttentionDecoder)
    encoder = load_encoder(checkpoint.encoder_name, encoder_weights or checkpoint.encoder_weights, grid=grid)
    _require_fit(checkpoint, encoder)
    _shift(checkpoint, options.shifts)
    provenance = {
        "encoder": record.encoder_provenance(checkpoint.encoder_name, encoder),
        "decoder": record.decoder_provenance(checkpoint, options.checkpoint),
    }
    if options.shifts:
        provenance["decoder"]["shifts"] = dict(options.shifts)
    kind, units = checkpoint.decoder.config.kind, checkpoint.decoder.config.units
    name = options.name or f"{checkpoint.encoder_name}-{kind}{units}"
    options = replace(options, name=name)
    return write_bundle(encoder, checkpoint.decoder, checkpoint.vocabulary, output, options, provenance)


@torch.no_grad()
def _shift(checkpoint: Checkpoint, shifts: Mapping[str, float]) -> None:
    """Adds to the logits of words. Raises ExportError for unknown words and numbers that are not finite."""
    ids, bias = checkpoint.vocabulary.ids, checkpoint.decoder.output.bias
    for word, shift in shifts.items():
        if word not in ids or not math.isfinite(shift):
            raise ExportError(f"the shift of {word!r} is {shift}: it must be a number, for a word of the vocabulary")
        bias[ids[word]] += shift


def _require_fit(checkpoint: Checkpoint, encoder: Encoder) -> None:
    """Refuses an encoder that the decoder was not trained with."""
    trained = checkpoint.config["encoder"].get("fingerprint", encoder.fingerprint)
    if (encoder.feature_size, encoder.fingerprint) != (checkpoint.decoder.config.feature_size, trained):
        raise ExportError(
            f"the decoder was trained with other encoder weights than {encoder.name} ({encoder.weights}): "
            f"pass the right ones with --encoder-weights"
        )
