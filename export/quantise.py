"""Static INT8 quantisation of an encoder, by ONNX Runtime's quantizer. Knows nothing of bundles.

Activations are uint8; weights are int8 with a scale per output channel. Clip and Relu become the quantised range
itself. Operators with only quantised inputs stay quantised, so that no floats pass between convolutions.
"""

import logging
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import GraphProto, ModelProto, NodeProto, numpy_helper
from onnxruntime.quantization import CalibrationMethod, QuantType
from onnxruntime.quantization.calibrate import TensorsData
from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

from export.graphs import clean
from export.pixel_input import PixelInput, cut_head, join_head
from export.pooling import pools_to_convolutions
from export.rounding import round_weights

FOLLOWING = ("Clip", "Relu", "Add", "Concat", "MaxPool", "AveragePool")
"""Operators, besides convolutions, that are quantised if all their inputs are."""


@dataclass(frozen=True, slots=True)
class Observed:
    """Statistics of activations on photographs, by name.

    ranges: smallest and largest value. means: float64 (channels,), for those that convolutions read.
    """

    ranges: Mapping[str, tuple[float, float]]
    means: Mapping[str, np.ndarray]


@dataclass(frozen=True, slots=True)
class Prepared:
    """An fp32 encoder, without its normalisation if that could be removed, and its replacement."""

    model: ModelProto
    planes: PixelInput | None

    def feed(self, pixels: np.ndarray) -> dict[str, np.ndarray]:
        """Returns the model's input for uint8 pixels (batch, height, width, 3)."""
        if self.planes is None:
            return {self.model.graph.input[0].name: pixels}
        return {self.planes.name: self.planes.planes(pixels)}


def prepare(encoder: ModelProto) -> Prepared:
    """Prepares a copy of an fp32 encoder: head removed, pools rewritten as convolutions, inner shapes inferred."""
    model = ModelProto()
    model.CopyFrom(encoder)
    planes = cut_head(model)
    model = onnx.shape_inference.infer_shapes(model)
    pools_to_convolutions(model)
    return Prepared(model, planes)


def quantise(prepared: Prepared, observed: Observed, *, narrow: bool = True) -> ModelProto:
    """Returns the INT8 encoder: inputs and outputs of the fp32 one, QuantizeLinear and DequantizeLinear inside.

    narrow: see export.rounding.
    """
    model = ModelProto()
    model.CopyFrom(prepared.model)
    nodes = quantised_nodes(model.graph)
    convolutions = [node.name for node in model.graph.node if node.op_type == "Conv" and node.name in nodes]
    grids = round_weights(model, convolutions, observed.means, narrow=narrow)
    overrides: dict[str, list[dict[str, Any]]] = {
        grid.weight: [
            {
                "axis": 0,
                "scale": np.array(scale),
                "zero_point": np.zeros((), np.int8),
                "quant_type": QuantType.QInt8,
            }
            for scale in grid.scales
        ]
        for grid in grids
    }
    planes = prepared.planes
    if planes is not None:
        overrides[planes.name] = [{"scale": np.array(planes.scale), "zero_point": np.array(planes.zero_point)}]
    with _without_advice():
        quantizer = QDQQuantizer(
            model,
            per_channel=True,
            reduce_range=False,
            weight_qType=QuantType.QInt8,
            activation_qType=QuantType.QUInt8,
            tensors_range=_limited(observed.ranges, prepared),
            nodes_to_quantize=nodes,
            nodes_to_exclude=[],
            op_types_to_quantize=["Conv", *FOLLOWING],
            extra_options={"TensorQuantOverrides": overrides},
        )
        quantizer.quantize_model()
    quantised: ModelProto = quantizer.model.model
    if planes is not None:
        join_head(quantised, planes)
    return clean(quantised)


def quantised_nodes(graph: GraphProto) -> list[str]:
    """Returns the names of the nodes to quantise: convolutions, and operators with only quantised inputs."""
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    chosen: list[str] = []
    quantised: set[str] = set()
    for node in graph.node:
        inputs = [name for name in node.input if name and name not in constants]
        if node.op_type == "Conv":
            takes = len(inputs) == 1
        else:
            whole = len(inputs) == len(node.input) or limits(node, constants) is not None
            takes = node.op_type in FOLLOWING and whole and quantised.issuperset(inputs)
        if takes:
            chosen.append(node.name)
            quantised.update(node.output)
    return chosen


def limits(node: NodeProto, constants: Mapping[str, np.ndarray]) -> tuple[float, float] | None:
    """Returns the limits of a Relu or Clip; None if it has none, or if they exclude 0.

    Quantised ranges always include 0, so they cannot replace such a Clip.
    """
    if node.op_type == "Relu":
        return 0.0, math.inf
    if node.op_type != "Clip":
        return None
    edges = [-math.inf, math.inf]
    for i, name in enumerate(node.input[1:]):
        if name:
            if name not in constants:
                return None
            edges[i] = float(constants[name])
    low, high = edges
    return (low, high) if low <= 0 <= high else None


def _limited(ranges: Mapping[str, tuple[float, float]], prepared: Prepared) -> TensorsData:
    """Clips the ranges after each Relu and Clip to its limits, so that quantisation applies them."""
    graph, found = prepared.model.graph, dict(ranges)
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    for node in graph.node:
        if node.output[0] in found and (limit := limits(node, constants)) is not None:
            low, high = found[node.output[0]]
            found[node.output[0]] = (max(low, limit[0]), min(high, limit[1]))
    if prepared.planes is not None:
        found[prepared.planes.name] = prepared.planes.range
    arrays = {name: tuple(np.array([edge], np.float32) for edge in edges) for name, edges in found.items()}
    return TensorsData(CalibrationMethod.MinMax, arrays)


@contextmanager
def _without_advice() -> Iterator[None]:
    """Silences the quantizer's advice on preprocessing, which is done here differently."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
