"""Writes bundles: both halves or one of them, verified before anyone can see them. Knows nothing of commands."""

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
"""A graph with more bytes of weights keeps them in a file of its own: protobuf ends at 2 GiB."""


class Part(Enum):
    """Which graphs an export makes; the others are taken from the bundle that it replaces."""

    BOTH = "both"
    ENCODER = "encoder"
    DECODER = "decoder"


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportOptions:
    """What is exported of a run, and what the bundle says of itself.

    checkpoint: "best" or "last". name, resize (the image's), and each field of the manifest's Defaults in `defaults`:
    where absent, what a bundle that is half replaced says already, or the usual. provenance is laid over what is known
    of encoder and decoder; quality is stored as it is. confidence: the coefficients that training.calibrate fits.
    verify_images: a folder of pictures to verify with; None for the repository's samples, or drawn ones where there
    are none.
    variants: the precisions besides fp32.
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

    encoder_weights as load_encoder takes them; None for those that the run names. Raises ExportError before any
    work when the output cannot be written as asked, ParityError when a graph is beyond its tolerance, and what
    load_checkpoint and load_encoder raise. Whatever happens, `output` is what it was before or the whole new bundle.
    """
    if "fp32" not in options.variants.precisions:
        raise ExportError("a bundle always holds fp32: --precision must name it, or add to a bundle that is there")
    if part is not Part.BOTH and options.variants.made:
        raise ExportError("half an export makes no other precision: add it to the bundle afterwards, without a run")
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
    """Returns the bundle whose other half stays, None for a whole export; refuses what must not be replaced."""
    if part is not Part.BOTH:
        if not output.exists():
            other = "decoder" if part is Part.ENCODER else "encoder"
            raise ExportError(f"{output} does not exist, so the {other} is missing: export both halves first")
        return Bundle.load(output)
    if output.exists() and not overwrite:
        raise ExportError(f"{output} exists already: name another output, or replace it with --overwrite")
    if output.is_file() or (output.is_dir() and any(output.iterdir()) and not (output / MANIFEST_FILE).is_file()):
        raise ExportError(f"{output} is not a bundle (it holds no {MANIFEST_FILE}), so it is not replaced")
    return None


def _require_fit(checkpoint: Checkpoint, encoder: Encoder | None, old: Bundle | None) -> None:
    """Refuses an encoder, of this export or of the bundle it completes, that the decoder was not trained on."""
    trained = checkpoint.config["encoder"].get("fingerprint")
    wanted = (checkpoint.encoder_name, checkpoint.decoder.config.feature_size)
    if encoder is not None:
        if encoder.feature_size != wanted[1] or trained not in (None, encoder.fingerprint):
            raise ExportError(
                f"the decoder was trained on features of other weights than {encoder.name} ({encoder.weights}) has: "
                f"name the right ones with --encoder-weights"
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
    """Copies the half that is not exported, in every precision, and returns its graphs."""
    kept = tuple(graph for graph in old.manifest.graphs if (graph.graph == "encoder") == (part is Part.DECODER))
    files = {name for graph in kept for name in (graph.file, *graph.data)}
    if part is Part.ENCODER:
        files.add(VOCABULARY_FILE)
    for name in sorted(files):
        shutil.copyfile(old.path / name, staging / name)
    return kept


def _write(staging: Path, encoder: Encoder | None, decoder: Checkpoint | None) -> tuple[GraphFile, ...]:
    """Writes the graphs, their weights and the vocabulary of the halves that are given."""
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
    """Describes the halves that are given; of the other, `kept`, the old manifest's word stands. Files come later."""
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
    # scores of the graphs that are replaced, and what whole variants were worth, would be a lie
    said, left = says.get("variants", {}), {graph.precision for graph in kept}
    records = {name: said[name].record for name in left & said.keys()}
    says["quality"], says["confidence"] = dict(options.quality), calibrated(options.confidence)
    says["variants"] = {"fp32": Variant()} | {name: Variant(record=records[name]) for name in sorted(records)}
    gone = {graph.precision for graph in old.manifest.graphs} - left if old is not None else set()
    says["parity"] = {n: value for n, value in says.get("parity", {}).items() if n.split()[0] not in gone}
    return Manifest(**{"graphs": (), "data_sha256": {}} | says)
