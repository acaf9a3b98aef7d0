"""INT8 decoder steps: integer matrix products. Knows nothing of words or files.

Weights are rounded once, with a scale per output channel; activations are rounded at every step, with a scale per row.
So no calibration is needed (an LSTM's first output reaches ten times the later ones), and a row's result does not
depend, bit for bit, on the rows beside it.
"""

from typing import Any

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from export.graphs import clean

WEIGHT_LEVELS = 63  # 7 bits: without VNNI, x86 adds two products in 16 bits, and 8 bits by 8 would overflow them
ROW_LEVELS = 127
ROW_ZERO = 128  # of uint8
CONTRIB = "com.microsoft"


def quantise_step(model: ModelProto) -> ModelProto:
    """Returns a copy of one of export.fused_steps' graphs whose products by weights are INT8.

    Inputs and outputs stay float32. A product of two weights, computed once when the graph is opened, stays unchanged.
    """
    quantised = ModelProto()
    quantised.CopyFrom(model)
    graph = quantised.graph
    weights = {tensor.name: tensor for tensor in graph.initializer}
    nodes: list[NodeProto] = []
    for node in graph.node:
        if node.op_type == "Gemm" and node.input[0] not in weights and node.input[1] in weights:
            nodes += _product(node, numpy_helper.to_array(weights[node.input[1]]), weights)
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


def _product(gemm: NodeProto, matrix: np.ndarray, weights: dict[str, TensorProto]) -> list[NodeProto]:
    """Returns the nodes for x @ matrix.T, plus c if there is one, and adds what they need to the weights."""
    attributes = {attribute.name: helper.get_attribute_value(attribute) for attribute in gemm.attribute}
    assert attributes.get("transB") == 1, "weights are stored as in PyTorch, (outputs, inputs)"
    x, name, *c = gemm.input
    scale = np.maximum(np.abs(matrix).max(axis=1), np.finfo(np.float32).tiny) / WEIGHT_LEVELS  # (outputs,)
    constants = {
        f"{name}_scale": scale.astype(np.float32),
        f"{name}_zero": np.zeros(len(scale), np.int8),
        "features_axis": np.array([1]),
        "row_level": np.float32(1 / ROW_LEVELS),
        "row_tiny": np.float32(1e-30),
        "row_one": np.float32(1),
        "row_zero": np.uint8(ROW_ZERO),
    }
    weights |= {key: numpy_helper.from_array(np.asarray(value), key) for key, value in constants.items()}
    part = {
        key: f"{gemm.name}_{key}" for key in ("size", "largest", "some", "scale", "unit", "whole", "product", "sum")
    }

    def node(op: str, inputs: list[str], output: str, **more: Any) -> NodeProto:
        return helper.make_node(op, inputs, [output], f"{output}_{op}", **more)

    return [
        # the runtime folds these two when it opens the graph, so no file stores the weights twice
        node("Transpose", [name], f"{name}_columns", perm=[1, 0]),  # (inputs, outputs)
        node("QuantizeLinear", [f"{name}_columns", f"{name}_scale", f"{name}_zero"], f"{name}_int8", axis=1),
        node("Abs", [x], part["size"]),
        node("ReduceMax", [part["size"], "features_axis"], part["largest"], keepdims=1),
        node("Max", [part["largest"], "row_tiny"], part["some"]),
        node("Mul", [part["some"], "row_level"], part["scale"]),  # (rows, 1)
        node("Div", [x, part["scale"]], part["unit"]),
        node("QuantizeLinear", [part["unit"], "row_one", "row_zero"], part["whole"]),
        node(
            "MatMulIntegerToFloat",
            [part["whole"], f"{name}_int8", "row_one", f"{name}_scale", "row_zero", f"{name}_zero"],
            part["product"],
            domain=CONTRIB,
        ),
        node("Mul", [part["product"], part["scale"]], part["sum"] if c else gemm.output[0]),
        *([node("Add", [part["sum"], *c], gemm.output[0])] if c else []),
    ]
