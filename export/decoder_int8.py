"""INT8 decoder steps: integer matrix products. Knows nothing of words or files.

Weights are rounded once, with a scale per output channel; activations are rounded at every step, with a scale per row.
So no calibration is needed (an LSTM's first output reaches ten times the later ones), and a row's result does not
depend, bit for bit, on the rows beside it.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from export.graphs import clean

WEIGHT_LEVELS = 63  # 7 bits: without VNNI, x86 adds two products in 16 bits, and 8 bits by 8 would overflow them
ROW_LEVELS = 127
ROW_ZERO = 128  # of uint8
CONTRIB = "com.microsoft"


def quantise_step(model: ModelProto) -> ModelProto:
    """Returns a copy of one of a decoder's graphs whose products by weights are INT8.

    Inputs and outputs stay float32. A product of two weights, computed once when the graph is opened, stays unchanged.
    """
    quantised = ModelProto()
    quantised.CopyFrom(model)
    graph = quantised.graph
    weights = {tensor.name: tensor for tensor in graph.initializer}
    nodes: list[NodeProto] = []
    rounded: dict[str, tuple[str, str]] = {}
    whole: set[str] = set()  # weights that are rounded already
    for node in graph.node:
        if _is_layer(node) and node.input[0] not in weights and node.input[1] in weights:
            if node.input[0] not in rounded:  # several products may take the same rows
                rounded[node.input[0]], added = _rows(node.input[0], weights)
                nodes += added
            if node.input[1] not in whole:  # several products may take the same weights
                whole.add(node.input[1])
                nodes += _columns(node.input[1], weights)
            nodes += _product(node, *rounded[node.input[0]])
        else:
            nodes.append(node)
    used = {name for node in nodes for name in node.input}
    kept = [tensor for name, tensor in weights.items() if name in used]
    copies = [NodeProto.FromString(node.SerializeToString()) for node in nodes]
    tensors = [TensorProto.FromString(tensor.SerializeToString()) for tensor in kept]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(copies)
    graph.initializer.extend(tensors)
    quantised.opset_import.append(helper.make_opsetid(CONTRIB, 1))
    return clean(quantised)


def _is_layer(node: NodeProto) -> bool:
    """Whether a node is a product by weights that are stored as in PyTorch, (outputs, inputs)."""
    attributes = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    wanted = {"alpha": 1, "beta": 1, "transA": 0, "transB": 1}
    return node.op_type == "Gemm" and wanted | attributes == wanted and "transB" in attributes


def _rows(x: str, weights: dict[str, TensorProto]) -> tuple[tuple[str, str], list[NodeProto]]:
    """Returns what rounded rows and their scales, (rows, 1), are called, and their nodes; adds what those need."""
    constants = {
        "features_axis": np.array([1]),
        "row_level": np.float32(1 / ROW_LEVELS),
        "row_tiny": np.float32(1e-30),
        "row_one": np.float32(1),
        "row_zero": np.uint8(ROW_ZERO),
    }
    _add(constants, weights)
    size, largest, some, scale, unit, whole = (
        f"{x}_{part}" for part in ("size", "largest", "some", "scale", "unit", "whole")
    )
    return (whole, scale), [
        _node("Abs", [x], size),
        _node("ReduceMax", [size, "features_axis"], largest, keepdims=1),
        _node("Max", [largest, "row_tiny"], some),
        _node("Mul", [some, "row_level"], scale),
        _node("Div", [x, scale], unit),
        _node("QuantizeLinear", [unit, "row_one", "row_zero"], whole),
    ]


def _columns(name: str, weights: dict[str, TensorProto]) -> list[NodeProto]:
    """Returns the nodes that round a matrix (outputs, inputs); adds what they need to the weights.

    The runtime folds both when it opens the graph, so no file stores the weights twice.
    """
    matrix = numpy_helper.to_array(weights[name])
    scale = np.maximum(np.abs(matrix).max(axis=1), np.finfo(np.float32).tiny) / WEIGHT_LEVELS  # (outputs,)
    _add({f"{name}_scale": scale.astype(np.float32), f"{name}_zero": np.zeros(len(scale), np.int8)}, weights)
    return [
        _node("Transpose", [name], f"{name}_columns", perm=[1, 0]),  # (inputs, outputs)
        _node("QuantizeLinear", [f"{name}_columns", f"{name}_scale", f"{name}_zero"], f"{name}_int8", axis=1),
    ]


def _product(gemm: NodeProto, whole: str, row_scale: str) -> list[NodeProto]:
    """Returns the nodes for x @ matrix.T of rounded rows and a rounded matrix, plus c if there is one."""
    _, name, *c = gemm.input
    c = [each for each in c if each]
    product, scaled = f"{gemm.name}_product", f"{gemm.name}_sum" if c else gemm.output[0]
    return [
        _node(
            "MatMulIntegerToFloat",
            [whole, f"{name}_int8", "row_one", f"{name}_scale", "row_zero", f"{name}_zero"],
            product,
            domain=CONTRIB,
        ),
        _node("Mul", [product, row_scale], scaled),
        *([_node("Add", [scaled, *c], gemm.output[0])] if c else []),
    ]


def _add(constants: Mapping[str, Any], weights: dict[str, TensorProto]) -> None:
    weights |= {name: numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()}


def _node(op: str, inputs: list[str], output: str, **more: Any) -> NodeProto:
    return helper.make_node(op, inputs, [output], f"{output}_{op}", **more)
