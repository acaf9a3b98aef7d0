"""Changes to a bundle beyond its fp32 graphs: precisions, measurements, scores, defaults. Makes no fp32 graph.

Changes are atomic: on any error the bundle stays as it was.
"""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from engine.bundle.bundle import (
    GRAPHS,
    MANIFEST_FILE,
    VOCABULARY_FILE,
    Bundle,
    check_confidence,
    check_defaults,
    sha256,
)
from engine.bundle.manifest import RESIZE_RULES, Defaults, ImageSpec, Manifest, Variant
from export import record
from export.calibration import Calibration
from export.errors import ExportError, ParityError
from export.pictures import load_pictures
from export.staging import staged
from export.variants import VariantOptions, files_of, make_variant
from export.verify import Check, table
from export.verify_variants import verify_variant
from training.files import write_json


def add_variants(bundle: Path, options: VariantOptions, verify_images: Path | None = None) -> tuple[Check, ...]:
    """Adds or replaces precisions of a bundle, or only measures the existing ones; returns the checks.

    It needs only the bundle's fp32 graphs. They and all other files in the folder stay unchanged.
    verify_images as in ExportOptions. Raises BundleError, ExportError, ParityError.
    """
    old = Bundle.load(bundle)
    made = set(options.made)
    calibration = options.load(old.manifest.image)
    with staged(bundle) as staging:
        graphs = tuple(graph for graph in old.manifest.graphs if graph.precision not in made)
        replaced = files_of(old.manifest.graphs) - files_of(graphs)
        for path in bundle.iterdir():
            if path.name not in replaced:
                (shutil.copytree if path.is_dir() else shutil.copyfile)(path, staging / path.name)
        parity = {name: value for name, value in old.manifest.parity.items() if name.split()[0] not in made}
        variants = {name: value for name, value in old.manifest.variants.items() if name not in made}
        manifest = replace(old.manifest, graphs=graphs, parity=parity, variants={"fp32": Variant()} | variants)
        return complete(staging, manifest, options, calibration, verify_images)


def complete(
    staging: Path,
    manifest: Manifest,
    options: VariantOptions,
    calibration: Calibration | None,
    verify_images: Path | None,
) -> tuple[Check, ...]:
    """Makes, verifies and measures the other precisions of a bundle that is being written; writes its last manifest.

    manifest: describes the graphs already in `staging`, fp32 included. Returns the checks of the variants.
    """
    checks: list[Check] = []
    exact = [graph for graph in manifest.graphs if graph.precision == "fp32" and graph.graph in GRAPHS]
    for precision in options.made:
        made = make_variant(precision, staging, exact, calibration, options.weight_bits)
        variants = manifest.variants | {precision: made.variant}
        manifest = replace(manifest, graphs=manifest.graphs + made.graphs, variants=variants)
        save_manifest(staging, manifest)
        pixels = load_pictures(verify_images, manifest.image) if made.pixels is None else made.pixels
        checks += verify_variant(Bundle.load(staging), precision, pixels)
        require_passed(checks)
    manifest = replace(manifest, parity=manifest.parity | record.parity(checks))
    save_manifest(staging, manifest)
    if options.measure:
        from export.measure import measure  # caption metrics are needed only here

        save_manifest(staging, replace(manifest, variants=measure(staging, options.measure)))
    return tuple(checks)


def amend(
    bundle: Path,
    *,
    quality: Mapping[str, Any] | None = None,
    defaults: Mapping[str, Any] | None = None,
    confidence: Mapping[str, Any] | None = None,
    resize: str | None = None,
) -> Manifest:
    """Changes a bundle's manifest, and returns it. Raises BundleError, ExportError.

    quality: scores from training.evaluate. defaults: those to replace. resize: the new resize rule. Measurements made
    with the old defaults or rule are removed, unless quality replaces them. confidence: coefficients from
    training.calibrate.
    """
    manifest = Bundle.load(bundle).manifest
    new, image = changed(manifest.defaults, defaults or {}), resized(manifest.image, resize)
    if (new, image) != (manifest.defaults, manifest.image):
        variants = {name: replace(variant, cider=None) for name, variant in manifest.variants.items()}
        manifest = replace(manifest, defaults=new, image=image, quality={}, variants=variants)
    if quality is not None:
        manifest = replace(manifest, quality=dict(quality))
    if confidence is not None:
        manifest = replace(manifest, confidence=calibrated(confidence))
    write_json(bundle / MANIFEST_FILE, manifest.to_dict())
    return manifest


def changed(defaults: Defaults, asked: Mapping[str, Any]) -> Defaults:
    """Replaces the given defaults. Raises ExportError for invalid values."""
    defaults = replace(defaults, **asked)
    if faults := check_defaults(defaults):
        raise ExportError("; ".join(faults))
    return defaults


def resized(image: ImageSpec, rule: str | None) -> ImageSpec:
    """Replaces the resize rule; None keeps it. Raises ExportError for an unknown rule."""
    if rule not in (None, *RESIZE_RULES):
        raise ExportError(f"resize must be one of {', '.join(RESIZE_RULES)}, not {rule!r}")
    return image if rule is None else replace(image, resize=rule)


def calibrated(coefficients: Mapping[str, Any]) -> dict[str, float]:
    """Returns the coefficients of engine.confidence. Raises ExportError for invalid ones."""
    if faults := check_confidence(coefficients):
        raise ExportError("; ".join(faults))
    return {name: float(value) for name, value in coefficients.items()}


def save_manifest(folder: Path, manifest: Manifest) -> None:
    """Writes a manifest with the SHA-256 of the files that its graphs share."""
    shared = [VOCABULARY_FILE, *(name for graph in manifest.graphs for name in graph.data)]
    manifest = replace(manifest, data_sha256={name: sha256(folder / name) for name in shared})
    write_json(folder / MANIFEST_FILE, manifest.to_dict())


def require_passed(checks: Sequence[Check]) -> None:
    """Raises ParityError, naming the failed checks, with a table of all."""
    if failed := [check.name for check in checks if not check.passed]:
        raise ParityError(f"nothing was written: checks over their tolerance: {'; '.join(failed)}\n{table(checks)}")
