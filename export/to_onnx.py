"""The command `python -m export.to_onnx`: exports the folder of a training run to a verified bundle.

Without --checkpoint it changes an existing bundle: precisions, measurements, scores, defaults, confidence or vectors.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from engine.bundle.bundle import Bundle
from engine.bundle.manifest import RESIZE_RULES, Defaults
from engine.commands.parser import Parser, existing_file, existing_folder, number, whole
from engine.errors import EngineError
from export.additions import add_variants, amend
from export.bundle import ExportOptions, export_bundle
from export.calibration import IMAGES
from export.errors import ExportError
from export.joint import add_vectors
from export.variants import PRECISIONS, VariantOptions
from export.verify import Check, table
from training.files import read_json
from training.models.checkpoint import CheckpointError
from training.models.encoders import EncoderError
from training.outcome import outcome

__all__ = ["ExportOptions", "VariantOptions", "add_variants", "amend", "export_bundle", "main"]

OF_SINGLE_IMAGES = ("captions", "refused", "per_image", "counts", "confidences")  # half a megabyte of scores.json


def _parser() -> Parser:
    parser = Parser(prog="python -m export.to_onnx", description=__doc__)
    parser.add_argument("--output", type=Path, required=True, help="the bundle's folder")
    parser.add_argument(
        "--checkpoint",
        type=existing_folder("the folder of a training.train run"),
        help="the folder of a training.train run; without it, an existing bundle is changed",
    )
    parser.add_argument("--which", choices=("best", "last"), default="best", help="which checkpoint of the run (best)")
    parser.add_argument("--encoder-weights", help='"pretrained", "random" or a file (default: those of the run)')
    parser.add_argument("--overwrite", action="store_true", help="replace an existing bundle")
    parser.add_argument("--name", help="the bundle's name (default: encoder, kind and size of the decoder)")
    usual = Defaults()
    parser.add_argument("--beam-size", type=whole(1), help=f"default beam size ({usual.beam_size})")
    parser.add_argument("--max-length", type=whole(1), help=f"default most tokens, END included ({usual.max_length})")
    parser.add_argument("--length-penalty", type=number(0, 10), help=f"default length penalty ({usual.length_penalty})")
    parser.add_argument(
        "--no-repeat-ngram-size", type=whole(0), metavar="N", help="no N words in a row are repeated (0: allowed)"
    )
    parser.add_argument(
        "--bad-endings",
        type=lambda words: tuple(filter(None, words.split(","))),
        metavar="WORD[,WORD]",
        help='words that captions must not end in, such as a,the,of ("": none)',
    )
    parser.add_argument(
        "--shifts",
        type=existing_file("a JSON file of training.balance"),
        help="JSON file of training.balance: what is added to the logits of words that are said too often or seldom",
    )
    parser.add_argument(
        "--resize",
        choices=RESIZE_RULES,
        help="how photographs of other shapes fit the encoder: stretched, only their middle, or whole with bars "
        "(default: the existing bundle's rule, or squash)",
    )
    parser.add_argument(
        "--provenance", type=existing_file("a JSON file"), help="JSON file: more on weights, data and licences"
    )
    parser.add_argument(
        "--quality",
        type=existing_file("a JSON file of training.evaluate"),
        action="append",
        default=[],
        help="JSON file of scores from training.evaluate; several are stored under the names of their data sets",
    )
    calibrated = existing_file("a JSON file of training.calibrate")
    parser.add_argument("--confidence", type=calibrated, help="JSON file of training.calibrate: the confidence model")
    parser.add_argument(
        "--joint",
        type=existing_folder("the folder of a training.joint run"),
        help="the folder of a training.joint run, which adds vectors of texts and images to an existing bundle",
    )
    photographs = existing_folder("a folder of photographs")
    parser.add_argument("--verify-images", type=photographs, help="photographs to verify with (default: samples/)")
    variants = parser.add_argument_group("precisions")
    variants.add_argument("--precision", help=f"which to write, such as {','.join(PRECISIONS)} (default: fp32)")
    variants.add_argument(
        "--calibration",
        type=Path,
        action="append",
        default=[],
        help="for int8: a data set, of which the train list is used, or a folder of photographs; can be repeated",
    )
    variants.add_argument(
        "--calibration-images", type=int, default=IMAGES, help=f"number of photographs to calibrate on ({IMAGES})"
    )
    variants.add_argument(
        "--weight-bits",
        type=int,
        default=7,
        help="for int8: 7 is correct on every processor, 8 needs VNNI on x86 (7)",
    )
    variants.add_argument(
        "--measure",
        type=Path,
        action="append",
        default=[],
        help="a data set to measure CIDEr (validation list) and speed of each precision on; repeated: mean CIDEr",
    )
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns the exit code. On 1, standard error says why nothing was written."""
    parser = _parser()
    given = parser.parse_args(arguments)

    if given.shifts and given.checkpoint is None:
        parser.error("--shifts changes the weights that are exported, so it needs --checkpoint")

    if given.joint and given.checkpoint is not None:
        parser.error(
            "--joint adds vectors to a bundle that exists: export the run first, then add them without --checkpoint"
        )

    def work() -> None:
        if given.checkpoint is not None:
            _export(given)
        elif not _change(given):
            others = "--precision, --measure, --quality, --confidence, --joint, --resize or defaults"
            parser.error(f"give --checkpoint to export a run, or {others} to change an existing bundle")

    named = ExportError, EngineError, CheckpointError, EncoderError
    return outcome(work, *named, interrupted=lambda: f"{given.output} is unchanged")


def _change(given: argparse.Namespace) -> bool:
    """Makes the requested changes to an existing bundle; returns whether there were any."""
    measured = given.precision is not None or bool(given.measure)
    defaults, quality = _defaults(given), _read_quality(given.quality) if given.quality else None
    confidence = given.confidence and _read_confidence(given.confidence)
    amended = bool(defaults or given.quality or given.confidence or given.resize)
    if amended:
        amend(given.output, quality=quality, defaults=defaults, confidence=confidence, resize=given.resize)
    if given.joint:
        print(table(add_vectors(given.output, given.joint)))
    if measured:
        _print(add_variants(given.output, _variants(given), given.verify_images), given.output)
    if changes := defaults | ({"resize": given.resize} if given.resize else {}):
        print(f"set {', '.join(f'{name}={value!r}' for name, value in changes.items())} in {given.output}")
    if given.quality:
        print(f"stored the scores of {', '.join(map(str, given.quality))} in {given.output}")
    if given.confidence:
        print(f"stored the confidence of {given.confidence} in {given.output}")
    if given.joint:
        print(f"added the vectors of {given.joint} to {given.output}")
    if changes and not (given.quality and given.measure):
        print("measurements with the old settings were removed: use --measure and --quality to add new ones")
    return measured or amended or given.joint is not None


def _defaults(given: argparse.Namespace) -> dict[str, Any]:
    return {f.name: value for f in fields(Defaults) if (value := getattr(given, f.name)) is not None}


def _export(given: argparse.Namespace) -> None:
    options = ExportOptions(
        checkpoint=given.which,
        name=given.name,
        defaults=_defaults(given),
        resize=given.resize,
        shifts=_read_shifts(given.shifts) if given.shifts else {},
        provenance=_read_object(given.provenance),
        quality=_read_quality(given.quality),
        confidence=_read_confidence(given.confidence) if given.confidence else {},
        verify_images=given.verify_images,
        variants=_variants(given),
    )
    checks = export_bundle(
        given.checkpoint,
        given.output,
        options,
        encoder_weights=given.encoder_weights,
        overwrite=given.overwrite,
    )
    _print(checks, given.output)


def _variants(given: argparse.Namespace) -> VariantOptions:
    return VariantOptions(
        precisions=tuple((given.precision or "fp32").split(",")),
        calibration=tuple(given.calibration),
        calibration_images=given.calibration_images,
        weight_bits=given.weight_bits,
        measure=tuple(given.measure),
    )


def _print(checks: Sequence[Check], output: Path) -> None:
    if checks:
        print(table(checks))
    print(f"wrote {output}")
    variants = Bundle.load(output).manifest.variants
    if len(variants) > 1 or any(variant.cider is not None for variant in variants.values()):
        for name, variant in variants.items():
            score = "CIDEr not measured" if variant.cider is None else f"CIDEr {variant.cider:.4f}"
            speeds = [f"{value:.1f} images/s on {provider}" for provider, value in variant.images_per_second.items()]
            print(", ".join([f"{name}: {score}", *speeds]))


def _read_quality(paths: Sequence[Path]) -> dict[str, Any]:
    """Reads scores, several by the names of their data sets; leaves out the parts about single images."""
    read = [{name: value for name, value in _read_object(p).items() if name not in OF_SINGLE_IMAGES} for p in paths]
    if len(read) < 2:
        return read[0] if read else {}
    by_data = {scores["data"]: scores for scores in read if isinstance(scores.get("data"), str)}
    if len(by_data) < len(read):
        raise ExportError("with several --quality files, each must name a different data set as its data")
    return by_data


def _read_shifts(path: Path) -> dict[str, float]:
    """Reads only the shifts."""
    shifts = _read_object(path).get("shifts")
    if not isinstance(shifts, dict) or not all(isinstance(shift, int | float) for shift in shifts.values()):
        raise ExportError(f"{path} contains no shifts: pass a file that training.balance wrote")
    return shifts


def _read_confidence(path: Path) -> dict[str, Any]:
    """Reads only the coefficients."""
    coefficients = _read_object(path).get("coefficients")
    if not isinstance(coefficients, dict) or not coefficients:
        raise ExportError(f"{path} contains no coefficients: pass a file that training.calibrate wrote")
    return coefficients


def _read_object(path: Path | None) -> dict[str, Any]:
    if path is None:
        return {}
    value = read_json(path, ExportError)
    if not isinstance(value, dict):
        raise ExportError(f"{path} must contain a JSON object, not {type(value).__name__}")
    return value


if __name__ == "__main__":
    sys.exit(main())
