"""Calibration for INT8: which photographs are used, and the range of each activation on them.

Knows nothing of how ranges are used.
"""

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from onnx import GraphProto, ModelProto, TensorProto, helper
from tqdm import tqdm

from engine.bundle.manifest import ImageSpec
from engine.errors import ImageError
from engine.images.formats import image_suffixes
from engine.images.load import load_for_model
from export.errors import ExportError
from export.quantise import Observed, Prepared, quantised_nodes
from training.data.datasets import DataError, open_dataset

IMAGES = 256
"""Enough photographs: see docs/speed.md."""

HELD_OUT = 32
"""Further photographs, not used for calibration, for verifying the result."""

BATCH = 4
SEED = 0


@dataclass(frozen=True, slots=True)
class Photographs:
    """Photographs of data sets' train lists, or of folders, in a fixed random order."""

    source: str
    names: tuple[str, ...]
    read: Callable[[str], bytes]

    @classmethod
    def find(cls, *places: Path) -> "Photographs":
        """Opens one place or several, alternating between their photographs. Raises ExportError if there are none."""
        found = {place.resolve().name: cls._open(place) for place in places}
        if len(found) < len(places):
            raise ExportError("two --calibration folders have the same name: rename one")
        if len(found) == 1:
            return next(iter(found.values()))
        turns = zip_longest(*([(place, name) for name in one.names] for place, one in found.items()))
        owners = {f"{place}/{name}": (found[place], name) for turn in turns for place, name in filter(None, turn)}

        def read(name: str) -> bytes:
            one, own = owners[name]
            return one.read(own)

        return cls("; ".join(one.source for one in found.values()), tuple(owners), read)

    @classmethod
    def _open(cls, where: Path) -> "Photographs":
        """Opens a data set as training.data.datasets.open_dataset does (its train list only), or a folder of images.

        Raises ExportError if there are none.
        """
        try:
            dataset = open_dataset(where, "train")
        except DataError as error:
            names = [path.name for path in where.glob("*") if path.suffix.lower() in image_suffixes()]
            if not names:
                raise ExportError(
                    f"{where} has no photographs to calibrate on: not a data set ({str(error).splitlines()[0]}), and "
                    "no images are in it"
                ) from error
            return cls(where.resolve().name, _drawn(names), lambda name: (where / name).read_bytes())
        names = [example.name for example in dataset.examples]
        return cls(f"{where.resolve().name}, train list", _drawn(names), dataset.read)

    def pixels(self, image: ImageSpec) -> Iterator[tuple[str, np.ndarray]]:
        """Yields names and uint8 pixels (height, width, 3), skipping files that cannot be read."""
        for name in self.names:
            try:
                yield name, load_for_model(self.read(name), image)
            except (ImageError, OSError):
                continue


@dataclass(frozen=True, slots=True)
class Calibration:
    """Photographs as uint8 pixels (count, height, width, 3): those to calibrate on, and some held out."""

    source: str
    names: tuple[str, ...]
    pixels: np.ndarray
    held_out: np.ndarray

    @classmethod
    def load(cls, photographs: Photographs, image: ImageSpec, count: int) -> "Calibration":
        """Reads up to `count` photographs, and HELD_OUT others. Raises ExportError if there are none.

        If there are no more than `count`, the held-out ones are the same photographs.
        """
        found: list[tuple[str, np.ndarray]] = []
        bar = tqdm(
            photographs.pixels(image), "photographs", total=min(count + HELD_OUT, len(photographs.names)), disable=None
        )
        for entry in bar:
            found.append(entry)
            if len(found) == count + HELD_OUT:
                break
        if not found:
            raise ExportError(
                f"none of the photographs of {photographs.source} can be read, so there is nothing to calibrate on"
            )
        names, pixels = zip(*found, strict=True)
        stacked = np.stack(pixels)
        return cls(
            photographs.source,
            names[:count],
            stacked[:count],
            stacked[count:] if len(found) > count else stacked[-HELD_OUT:],
        )

    def record(self) -> dict[str, Any]:
        """Describes the photographs for the manifest; the hash is of their sorted names, one per line."""
        listed = "".join(f"{name}\n" for name in sorted(self.names))
        return {
            "photographs": len(self.names),
            "source": self.source,
            "names_sha256": hashlib.sha256(listed.encode()).hexdigest(),
        }


def observe(prepared: Prepared, pixels: np.ndarray) -> Observed:
    """Runs uint8 pixels (count, height, width, 3) through the fp32 encoder and records its activations."""
    model = ModelProto()
    model.CopyFrom(prepared.model)
    ranged, read = _activations(model.graph)
    wanted = sorted(ranged | read)
    given = {value.name for value in model.graph.input}
    outputs = {value.name for value in model.graph.output}
    made = [name for name in wanted if name not in given]
    model.graph.output.extend(
        helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in made if name not in outputs
    )
    settings = ort.SessionOptions()
    settings.log_severity_level = 3
    session = ort.InferenceSession(model.SerializeToString(), settings, providers=["CPUExecutionProvider"])
    least, largest = dict.fromkeys(ranged, math.inf), dict.fromkeys(ranged, -math.inf)
    sums: dict[str, np.ndarray] = {}
    with tqdm(total=len(pixels), desc="ranges", unit="image", disable=None) as bar:
        for i in range(0, len(pixels), BATCH):
            feed = prepared.feed(pixels[i : i + BATCH])
            values = dict(zip(made, session.run(made, feed), strict=True)) | {n: feed[n] for n in given & set(wanted)}
            for name in ranged:
                least[name] = min(least[name], float(values[name].min()))
                largest[name] = max(largest[name], float(values[name].max()))
            for name in read:
                value = values[name].mean(axis=tuple(range(2, values[name].ndim)), dtype=np.float64)
                sums[name] = sums.get(name, 0.0) + value.sum(axis=0)  # (channels,)
            bar.update(len(pixels[i : i + BATCH]))
    ranges = {name: (least[name], largest[name]) for name in sorted(ranged)}
    return Observed(ranges, {name: sums[name] / len(pixels) for name in sorted(read)})


def _activations(graph: GraphProto) -> tuple[set[str], set[str]]:
    """Returns the names of the activations that need a range, and of those that convolutions read."""
    constants = {tensor.name for tensor in graph.initializer}
    chosen = set(quantised_nodes(graph))
    nodes = [node for node in graph.node if node.name in chosen]
    read = {node.input[0] for node in nodes if node.op_type == "Conv"}
    ranged = {name for node in nodes for name in (*node.input, *node.output) if name and name not in constants}
    return ranged, read


def _drawn(names: Sequence[str]) -> tuple[str, ...]:
    names = sorted(names)
    return tuple(names[i] for i in np.random.default_rng(SEED).permutation(len(names)))
