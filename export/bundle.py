"""Writes bundles, and verifies them before they become visible. Knows nothing of commands."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from engine.bundle.bundle import MANIFEST_FILE, VOCABULARY_FILE
from engine.bundle.manifest import Defaults, GraphFile, Manifest, Variant
from engine.bundle.vocabulary import SPECIAL_WORDS
from export import record
from export.additions import calibrated, changed, complete, require_passed, resized, save_manifest
from export.decoder import init_graph, step_graph
from export.encoder import encoder_graph
from export.errors import ExportError
from export.fused_steps import fused_steps
from export.pictures import find_pictures
from export.staging import staged
from export.variants import VariantOptions
from export.verify import Check, verify
from export.weights import share_weights
from training.models.checkpoint import Checkpoint, load_checkpoint
from training.models.encoders import Encoder, load_encoder

DECODER_WEIGHTS = "decoder.weights"
ENCODER_WEIGHTS = "encoder.weights"
LARGEST_GRAPH = 1 << 30
"""Graphs with more bytes of weights store them in a separate file: protobuf is limited to 2 GiB."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportOptions:
    """What to export from a run, and what to record in the bundle.

    checkpoint: "best" or "last". name, resize (the image's) and defaults (fields of the manifest's Defaults): if
    absent, they take the usual values. provenance is merged over what is known about encoder and decoder; quality is
    stored unchanged. confidence: coefficients from training.calibrate. verify_images: a folder of images to verify
    with; None takes the repository's samples, or drawn images if there are none. variants: the precisions besides fp32.
    """

    checkpoint: str = "best"
    name: str | None = None
    resize: str | None = None
    defaults: Mapping[str, Any] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    quality: Mapping[str, Any] = field(default_factory=dict)
    confidence: Mapping[str, Any] = field(default_factory=dict)
    verify_images: Path | None = None
    variants: VariantOptions = VariantOptions()  # noqa: RUF009 - frozen


def export_bundle(
    folder: Path,
    output: Path,
    options: ExportOptions = ExportOptions(),
    *,
    encoder_weights: str | None = None,
    overwrite: bool = False,
) -> tuple[Check, ...]:
    """Exports the run in `folder` to the bundle `output`, verifies it and returns the checks.

    encoder_weights: as for load_encoder; None takes those of the run. Raises ExportError before any work if the
    output cannot be written as requested, ParityError if a graph exceeds its tolerance, and what load_checkpoint and
    load_encoder raise. On any error `output` stays as it was.
    """
    if "fp32" not in options.variants.precisions:
        raise ExportError("a bundle always needs fp32: add it to --precision, or add to an existing bundle")
    if output.exists() and not overwrite:
        raise ExportError(f"{output} already exists: choose another --output, or replace it with --overwrite")
    if output.is_file() or (output.is_dir() and any(output.iterdir()) and not (output / MANIFEST_FILE).is_file()):
        raise ExportError(f"{output} is not a bundle (it has no {MANIFEST_FILE}), so it is not replaced")
    changed(Defaults(), options.defaults)
    calibrated(options.confidence)
    pictures = find_pictures(options.verify_images)
    checkpoint = load_checkpoint(folder, options.checkpoint)
    encoder = load_encoder(checkpoint.encoder_name, encoder_weights or checkpoint.encoder_weights)
    encoder.image = resized(encoder.image, options.resize)
    _require_fit(checkpoint, encoder)
    calibration = options.variants.load(encoder.image)
    with staged(output) as staging:
        manifest = _manifest(encoder, checkpoint, options, _write(staging, encoder, checkpoint))
        save_manifest(staging, manifest)
        checks = verify(staging, encoder, checkpoint.decoder, pictures)
        require_passed(checks)
        manifest = replace(manifest, parity=record.parity(checks))
        return checks + complete(staging, manifest, options.variants, calibration, options.verify_images)


def _require_fit(checkpoint: Checkpoint, encoder: Encoder) -> None:
    """Refuses an encoder that the decoder was not trained with."""
    trained = checkpoint.config["encoder"].get("fingerprint", encoder.fingerprint)
    if (encoder.feature_size, encoder.fingerprint) != (checkpoint.decoder.config.feature_size, trained):
        raise ExportError(
            f"the decoder was trained with other encoder weights than {encoder.name} ({encoder.weights}): "
            f"pass the right ones with --encoder-weights"
        )


def _write(staging: Path, encoder: Encoder, checkpoint: Checkpoint) -> tuple[GraphFile, ...]:
    """Writes the graphs, weights and vocabulary."""
    models = {"encoder": encoder_graph(encoder)}
    if models["encoder"].ByteSize() > LARGEST_GRAPH:
        share_weights([models["encoder"]], staging / ENCODER_WEIGHTS)
    decoders = {
        "decoder_init": init_graph(checkpoint.decoder),
        "decoder_step": step_graph(checkpoint.decoder),
        **fused_steps(checkpoint.decoder),
    }
    share_weights(list(decoders.values()), staging / DECODER_WEIGHTS)
    models |= decoders
    checkpoint.vocabulary.save(staging / VOCABULARY_FILE)
    for name, model in models.items():
        (staging / f"{name}.onnx").write_bytes(model.SerializeToString(deterministic=True))
    return tuple(record.graph_file(name, staging / f"{name}.onnx") for name in models)


def _manifest(
    encoder: Encoder, checkpoint: Checkpoint, options: ExportOptions, graphs: tuple[GraphFile, ...]
) -> Manifest:
    """Describes a bundle whose checks and other precisions are added later."""
    sizes, words = checkpoint.decoder.config, checkpoint.vocabulary
    provenance = {
        "encoder": record.encoder_provenance(encoder),
        "decoder": record.decoder_provenance(checkpoint, options.checkpoint),
    }
    return Manifest(
        name=options.name or f"{encoder.name}-lstm{sizes.units}",
        encoder=encoder.name,
        feature_size=encoder.feature_size,
        image=encoder.image,
        units=sizes.units,
        vocabulary_size=len(words),
        special_ids={word: words.ids[word] for word in SPECIAL_WORDS},
        graphs=graphs,
        data_sha256={},
        defaults=changed(Defaults(), options.defaults),
        provenance=record.overlay(provenance, options.provenance),
        versions=dict.fromkeys(("encoder", "decoder"), record.versions()),
        quality=dict(options.quality),
        confidence=calibrated(options.confidence),
        variants={"fp32": Variant()},
        parity={},
    )
