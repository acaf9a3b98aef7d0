"""Writes bundles, or one half of them, and verifies them before they become visible. Knows nothing of commands."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from enum import Enum
from pathlib import Path
from typing import Any

from engine.bundle.bundle import MANIFEST_FILE, VOCABULARY_FILE, Bundle
from engine.bundle.manifest import Defaults, GraphFile, Manifest, Variant
from engine.bundle.vocabulary import SPECIAL_WORDS
from export import record
from export.additions import calibrated, changed, check_resize, complete, require_passed, resized, save_manifest
from export.decoder import init_graph, step_graph
from export.encoder import encoder_graph
from export.errors import ExportError
from export.fused_steps import fused_steps
from export.pictures import find_pictures
from export.staging import staged
from export.variants import VariantOptions
from export.verify import Check, Reference, verify
from export.weights import share_weights
from training.models.checkpoint import Checkpoint, load_checkpoint
from training.models.encoders import Encoder, load_encoder

DECODER_WEIGHTS = "decoder.weights"
ENCODER_WEIGHTS = "encoder.weights"
LARGEST_GRAPH = 1 << 30
"""Graphs with more bytes of weights store them in a separate file: protobuf is limited to 2 GiB."""


class Part(Enum):
    """Which graphs an export writes; the others are copied from the bundle that it replaces."""

    BOTH = "both"
    ENCODER = "encoder"
    DECODER = "decoder"


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportOptions:
    """What to export from a run, and what to record in the bundle.

    checkpoint: "best" or "last". name, resize (the image's) and defaults (fields of the manifest's Defaults): if
    absent, they are kept from a bundle that is half replaced, or take the usual values. provenance is merged over what
    is known about encoder and decoder; quality is stored unchanged. confidence: coefficients from training.calibrate.
    verify_images: a folder of images to verify with; None takes the repository's samples, or drawn images if there are
    none. variants: the precisions besides fp32.
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
    part: Part = Part.BOTH,
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
    if part is not Part.BOTH and options.variants.made:
        raise ExportError("half an export writes fp32 only: add other precisions afterwards, without a run")
    old = _bundle_to_complete(output, part, overwrite)
    changed(Defaults(), options.defaults)
    calibrated(options.confidence)
    check_resize(options.resize)
    pictures = find_pictures(options.verify_images)
    checkpoint = load_checkpoint(folder, options.checkpoint)
    encoder = None
    if part is not Part.DECODER:
        encoder = load_encoder(checkpoint.encoder_name, encoder_weights or checkpoint.encoder_weights)
        encoder.image = resized(encoder.image, options.resize or (old.manifest.image.resize if old else None))
    _require_fit(checkpoint, encoder, old)
    decoder = None if part is Part.ENCODER else checkpoint
    calibration = None if encoder is None else options.variants.load(encoder.image)
    with staged(output) as staging:
        kept = _keep(old, part, staging) if old is not None else ()
        graphs = _write(staging, encoder, decoder)
        manifest = _manifest(encoder, decoder, old, options, kept)
        manifest = replace(manifest, graphs=graphs + kept)
        save_manifest(staging, manifest)
        checks = verify(staging, Reference(encoder, decoder.decoder if decoder else None), pictures)
        require_passed(checks)
        manifest = replace(manifest, parity=manifest.parity | record.parity(checks))
        return checks + complete(staging, manifest, options.variants, calibration, options.verify_images)


def _bundle_to_complete(output: Path, part: Part, overwrite: bool) -> Bundle | None:
    """Returns the bundle whose other half is kept, None for a full export; refuses to replace what it must not."""
    if part is not Part.BOTH:
        if not output.exists():
            other = "decoder" if part is Part.ENCODER else "encoder"
            raise ExportError(f"{output} does not exist, so there is no {other} to keep: export both halves first")
        return Bundle.load(output)
    if output.exists() and not overwrite:
        raise ExportError(f"{output} already exists: choose another --output, or replace it with --overwrite")
    if output.is_file() or (output.is_dir() and any(output.iterdir()) and not (output / MANIFEST_FILE).is_file()):
        raise ExportError(f"{output} is not a bundle (it has no {MANIFEST_FILE}), so it is not replaced")
    return None


def _require_fit(checkpoint: Checkpoint, encoder: Encoder | None, old: Bundle | None) -> None:
    """Refuses an encoder (from this export, or from the bundle it completes) that the decoder was not trained with."""
    trained = checkpoint.config["encoder"].get("fingerprint")
    wanted = (checkpoint.encoder_name, checkpoint.decoder.config.feature_size)
    if encoder is not None:
        if encoder.feature_size != wanted[1] or trained not in (None, encoder.fingerprint):
            raise ExportError(
                f"the decoder was trained with other encoder weights than {encoder.name} ({encoder.weights}): "
                f"pass the right ones with --encoder-weights"
            )
        trained = encoder.fingerprint
    if old is not None:
        there = old.manifest.provenance.get("encoder", {}).get("fingerprint")
        same_weights = None in (trained, there) or trained == there
        if (old.manifest.encoder, old.manifest.feature_size) != wanted or not same_weights:
            raise ExportError(
                f"the run's encoder ({wanted[0]}) is not the one of {old.path} ({old.manifest.encoder}), or has other "
                f"weights: export both halves"
            )


def _keep(old: Bundle, part: Part, staging: Path) -> tuple[GraphFile, ...]:
    """Copies the half that is kept, in every precision, and returns its graphs."""
    kept = tuple(graph for graph in old.manifest.graphs if (graph.graph == "encoder") == (part is Part.DECODER))
    files = {name for graph in kept for name in (graph.file, *graph.data)}
    if part is Part.ENCODER:
        files.add(VOCABULARY_FILE)
    for name in sorted(files):
        shutil.copyfile(old.path / name, staging / name)
    return kept


def _write(staging: Path, encoder: Encoder | None, decoder: Checkpoint | None) -> tuple[GraphFile, ...]:
    """Writes the graphs, weights and vocabulary of the given halves."""
    models = {}
    if encoder is not None:
        models["encoder"] = encoder_graph(encoder)
        if models["encoder"].ByteSize() > LARGEST_GRAPH:
            share_weights([models["encoder"]], staging / ENCODER_WEIGHTS)
    if decoder is not None:
        decoders = {
            "decoder_init": init_graph(decoder.decoder),
            "decoder_step": step_graph(decoder.decoder),
            **fused_steps(decoder.decoder),
        }
        share_weights(list(decoders.values()), staging / DECODER_WEIGHTS)
        models |= decoders
        decoder.vocabulary.save(staging / VOCABULARY_FILE)
    for name, model in models.items():
        (staging / f"{name}.onnx").write_bytes(model.SerializeToString(deterministic=True))
    return tuple(record.graph_file(name, staging / f"{name}.onnx") for name in models)


def _manifest(
    encoder: Encoder | None,
    decoder: Checkpoint | None,
    old: Bundle | None,
    options: ExportOptions,
    kept: Sequence[GraphFile],
) -> Manifest:
    """Describes the given halves; for the other, `kept`, the old manifest is copied. Files are added later."""
    says: dict[str, Any] = {} if old is None else {f.name: getattr(old.manifest, f.name) for f in fields(Manifest)}
    provenance, versions = dict(says.get("provenance", {})), dict(says.get("versions", {}))
    if encoder is not None:
        says |= {"encoder": encoder.name, "feature_size": encoder.feature_size, "image": encoder.image}
        provenance["encoder"], versions["encoder"] = record.encoder_provenance(encoder), record.versions()
    else:
        says["image"] = resized(says["image"], options.resize)
    if decoder is not None:
        sizes, words = decoder.decoder.config, decoder.vocabulary
        special = {word: words.ids[word] for word in SPECIAL_WORDS}
        says |= {"units": sizes.units, "vocabulary_size": len(words), "special_ids": special}
        provenance["decoder"] = record.decoder_provenance(decoder, options.checkpoint)
        versions["decoder"] = record.versions()
    says["name"] = options.name or says.get("name") or f"{says['encoder']}-lstm{says['units']}"
    says["defaults"] = changed(says.get("defaults", Defaults()), options.defaults)
    says["provenance"], says["versions"] = record.overlay(provenance, options.provenance), versions
    # scores of the replaced graphs, and measurements of whole variants, would be wrong now
    said, left = says.get("variants", {}), {graph.precision for graph in kept}
    records = {name: said[name].record for name in left & said.keys()}
    says["quality"], says["confidence"] = dict(options.quality), calibrated(options.confidence)
    says["variants"] = {"fp32": Variant()} | {name: Variant(record=records[name]) for name in sorted(records)}
    gone = {graph.precision for graph in old.manifest.graphs} - left if old is not None else set()
    says["parity"] = {n: value for n, value in says.get("parity", {}).items() if n.split()[0] not in gone}
    return Manifest(**{"graphs": (), "data_sha256": {}} | says)
