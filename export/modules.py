"""Writes a bundle from torch modules, and verifies it before it becomes visible. Knows nothing of runs or commands."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import nn

from engine.bundle.bundle import MANIFEST_FILE, VOCABULARY_FILE
from engine.bundle.manifest import Defaults, GraphFile, ImageSpec, Manifest, Variant, Words
from engine.bundle.vocabulary import Vocabulary
from export import record
from export.additions import calibrated, changed, complete, require_passed, resized, save_manifest
from export.decoder import Layout, init_graph, search_graphs, step_graph
from export.encoder import encoder_graph
from export.errors import ExportError
from export.pictures import find_pictures
from export.staging import staged
from export.variants import VariantOptions
from export.verify import Check, verify
from export.weights import share_weights
from training.models.encoders import Encoder

__all__ = ["ExportOptions", "ImageSpec", "Vocabulary", "Words", "export_modules", "write_bundle"]

DECODER_WEIGHTS = "decoder.weights"
ENCODER_WEIGHTS = "encoder.weights"
LARGEST_GRAPH = 1 << 30
"""Graphs with more bytes of weights store them in a separate file: protobuf is limited to 2 GiB."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportOptions:
    """What to export from a run, and what to record in the bundle.

    checkpoint: "best" or "last". name, resize (the image's) and defaults (fields of the manifest's Defaults): if
    absent, they take the usual values. shifts: what is added to the logits of words, in nats, for the decoder of a run:
    less for a word that it says too often. provenance is merged over what is known about encoder and decoder; quality
    is stored unchanged. confidence: coefficients from training.calibrate. verify_images: a folder of images to verify
    with; None takes the repository's samples, or drawn images if there are none. variants: the precisions besides fp32.
    """

    checkpoint: str = "best"
    name: str | None = None
    resize: str | None = None
    shifts: Mapping[str, float] = field(default_factory=dict)
    defaults: Mapping[str, Any] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    quality: Mapping[str, Any] = field(default_factory=dict)
    confidence: Mapping[str, Any] = field(default_factory=dict)
    verify_images: Path | None = None
    variants: VariantOptions = VariantOptions()  # noqa: RUF009 - frozen


def export_modules(
    encoder: nn.Module,
    decoder: nn.Module,
    vocabulary: Vocabulary,
    image: ImageSpec,
    output: Path,
    options: ExportOptions = ExportOptions(),
    *,
    overwrite: bool = False,
) -> tuple[Check, ...]:
    """Exports any encoder and recurrent decoder to the bundle `output`, verifies it and returns the checks.

    encoder: takes normalised pixels, float32 (batch, 3, height, width), and returns features (batch, ...) of any rank.
    decoder: `start(features)` returns (state, context), and `step(token_ids, state, context)` returns (logits, state).
    State and context are tuples of tensors with a row for each image or sentence; context stays the same at all steps,
    and the sentences of an image share it. token_ids is int64 (rows,), logits are float32 (rows, vocabulary).
    vocabulary: its words by id, and its special words. image: how a photograph becomes pixels.

    Both modules are put into eval mode. Raises ExportError before any work if the output cannot be written as requested
    or a module does not fit, and ParityError if a graph exceeds its tolerance. On any error `output` stays as it was.
    """
    require_writable(output, options, overwrite=overwrite)
    name = type(encoder).__name__.lower()
    made = Encoder(name, "given", replace(image, resize=options.resize or image.resize), encoder)
    facts = {
        "encoder": {"name": name, "weights": "given", "fingerprint": made.fingerprint} | record.UNKNOWN_TERMS,
        "decoder": {"name": type(decoder).__name__, "licence": "not stated: ask the author of the weights"},
    }
    return write_bundle(made, decoder, vocabulary, output, options, facts)


def require_writable(output: Path, options: ExportOptions, *, overwrite: bool) -> None:
    """Raises ExportError if the output cannot be written as requested, or options are invalid."""
    if "fp32" not in options.variants.precisions:
        raise ExportError("a bundle always needs fp32: add it to --precision, or add to an existing bundle")
    if output.exists() and not overwrite:
        raise ExportError(f"{output} already exists: choose another --output, or replace it with --overwrite")
    if output.is_file() or (output.is_dir() and any(output.iterdir()) and not (output / MANIFEST_FILE).is_file()):
        raise ExportError(f"{output} is not a bundle (it has no {MANIFEST_FILE}), so it is not replaced")
    changed(Defaults(), options.defaults)
    calibrated(options.confidence)
    find_pictures(options.verify_images)


def write_bundle(
    encoder: Encoder,
    decoder: nn.Module,
    vocabulary: Vocabulary,
    output: Path,
    options: ExportOptions,
    provenance: Mapping[str, Any],
) -> tuple[Check, ...]:
    """Writes a bundle and returns the checks.

    provenance: what is known of both modules; that of the options is merged over it.
    """
    pictures = find_pictures(options.verify_images)
    encoder.image = resized(encoder.image, options.resize)
    layout = Layout.of(decoder.eval(), encoder.output_shape)
    if layout.words != len(vocabulary):
        raise ExportError(f"the decoder scores {layout.words} words, but the vocabulary has {len(vocabulary)}")
    calibration = options.variants.load(encoder.image)
    with staged(output) as staging:
        graphs = _write(staging, encoder, decoder, layout, vocabulary)
        manifest = Manifest(
            name=options.name or f"{encoder.name}-{type(decoder).__name__.lower()}",
            encoder=encoder.name,
            feature_shape=layout.feature_shape,
            state=layout.state,
            context=layout.context,
            attention=layout.attention,
            vector_size=0,
            image=encoder.image,
            vocabulary_size=len(vocabulary),
            words=vocabulary.rules,
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
        save_manifest(staging, manifest)
        checks = verify(staging, encoder, decoder, pictures)
        require_passed(checks)
        manifest = replace(manifest, parity=record.parity(checks))
        return checks + complete(staging, manifest, options.variants, calibration, options.verify_images)


def _write(
    staging: Path, encoder: Encoder, decoder: nn.Module, layout: Layout, vocabulary: Vocabulary
) -> tuple[GraphFile, ...]:
    """Writes the graphs, weights and vocabulary."""
    models = {"encoder": encoder_graph(encoder)}
    if models["encoder"].ByteSize() > LARGEST_GRAPH:
        share_weights([models["encoder"]], staging / ENCODER_WEIGHTS)
    decoders = {
        "decoder_init": init_graph(decoder, layout),
        "decoder_step": step_graph(decoder, layout),
        **search_graphs(decoder, layout),
    }
    share_weights(list(decoders.values()), staging / DECODER_WEIGHTS)
    models |= decoders
    vocabulary.save(staging / VOCABULARY_FILE)
    for name, model in models.items():
        (staging / f"{name}.onnx").write_bytes(model.SerializeToString(deterministic=True))
    return tuple(record.graph_file(name, staging / f"{name}.onnx") for name in models)
