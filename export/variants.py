"""Makes the graphs of a bundle in precisions besides fp32, from its fp32 graphs, in the folder being written.

Owns which graphs a precision has and their file names; knows nothing of checkpoints or commands.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx

from engine.bundle.manifest import GraphFile, ImageSpec, Variant
from export import record
from export.calibration import IMAGES, Calibration, Photographs, observe
from export.decoder_int8 import quantise_step
from export.errors import ExportError
from export.half import half
from export.quantise import prepare, quantise
from export.weights import share_weights

PRECISIONS = ("fp32", "int8", "fp16")
STEPS = ("search_step", "sample_step")


@dataclass(frozen=True, slots=True, kw_only=True)
class VariantOptions:
    """The precisions to write, and the photographs to calibrate INT8 on.

    calibration: data sets, of which only the train lists are used, or folders of photographs. calibration_images: how
    many to use. weight_bits: 7 is correct on every processor; 8 is closer to fp32, but overflows on x86 without VNNI,
    where the engine's "auto" then avoids it. measure: data sets on whose dev lists every precision is measured; without
    them CIDEr and speed are unknown, and the engine's "auto" stays with fp32.
    """

    precisions: tuple[str, ...] = ("fp32",)
    calibration: tuple[Path, ...] = ()
    calibration_images: int = IMAGES
    weight_bits: int = 7
    measure: tuple[Path, ...] = ()

    def __post_init__(self) -> None:
        known = ", ".join(PRECISIONS)
        if unknown := [name for name in self.precisions if name not in PRECISIONS]:
            raise ExportError(f"unknown precision {', '.join(map(repr, unknown))}: choose from {known}")
        if "int8" in self.precisions and not self.calibration:
            raise ExportError("int8 needs photographs: pass a data set or a folder of them with --calibration")
        if "int8" not in self.precisions and self.calibration:
            raise ExportError("--calibration is only used for int8: add int8 to --precision")
        if self.weight_bits not in (7, 8):
            raise ExportError(f"--weight-bits must be 7 or 8, but it is {self.weight_bits}")
        if self.calibration_images < 1:
            raise ExportError(f"--calibration-images must be at least 1, but it is {self.calibration_images}")

    @property
    def made(self) -> tuple[str, ...]:
        """The precisions besides fp32, each once, in a fixed order."""
        return tuple(name for name in PRECISIONS[1:] if name in self.precisions)

    def load(self, image: ImageSpec) -> Calibration | None:
        """Reads the photographs if int8 needs them. Raises ExportError if there are none."""
        if not self.calibration:
            return None
        return Calibration.load(Photographs.find(*self.calibration), image, self.calibration_images)


@dataclass(frozen=True, slots=True)
class Made:
    """A variant's graphs, its entry in the manifest, and held-out photographs as pixels, if any."""

    graphs: tuple[GraphFile, ...]
    variant: Variant
    pixels: np.ndarray | None


def make_variant(
    precision: str,
    folder: Path,
    exact: Iterable[GraphFile],
    calibration: Calibration | None,
    weight_bits: int = 7,
) -> Made:
    """Writes the graphs of a precision into a folder with the fp32 ones (`exact`)."""
    exact = tuple(exact)
    sources = {graph.graph: folder / graph.file for graph in exact}
    if precision == "fp16":
        models = {name: half(onnx.load(path)) for name, path in sources.items()}
        share_weights([model for name, model in models.items() if name != "encoder"], folder / "decoder.fp16.weights")
        graphs = _write(folder, precision, models)
        return Made(graphs, Variant(record={"graphs": sorted(models)}), None)
    assert calibration is not None
    prepared = prepare(onnx.load(sources["encoder"]))
    models = {"encoder": quantise(prepared, observe(prepared, calibration.pixels), narrow=weight_bits == 7)}
    # without context a start is too quick to gain; with it, every cell's keys and values take as long as several steps
    context = any(tensor.name == "image_rows" for graph in exact for tensor in graph.inputs)
    names = ("decoder_init", *STEPS) if context else STEPS
    steps = {name: quantise_step(onnx.load(sources[name])) for name in names}
    share_weights(list(steps.values()), folder / "decoder.int8.weights", beside=sources.values())
    models |= steps
    said = {
        "graphs": sorted(models),
        "calibration": calibration.record(),
        "activations": "uint8, least to largest value seen",
        "weights": "int8, a scale for each output channel; 8 bits in depthwise convolutions; biases corrected",
        "weight_bits": weight_bits,
        "left_in_fp32": [],
    }
    return Made(_write(folder, precision, models), Variant(record=said), calibration.held_out)


def files_of(graphs: Sequence[GraphFile]) -> set[str]:
    """Returns the names of all files that the graphs need."""
    return {name for graph in graphs for name in (graph.file, *graph.data)}


def _write(folder: Path, precision: str, models: dict[str, onnx.ModelProto]) -> tuple[GraphFile, ...]:
    files = []
    for name, model in models.items():
        path = folder / f"{name}.{precision}.onnx"
        path.write_bytes(model.SerializeToString(deterministic=True))
        files.append(record.graph_file(name, path, precision))
    return tuple(files)
