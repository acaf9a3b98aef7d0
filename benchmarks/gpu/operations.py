"""Counts the multiplications and additions of a graph. Runs nothing."""

from pathlib import Path

import numpy as np
import onnx
from onnx.shape_inference import infer_shapes


def operations(path: Path, sizes: dict[str, int]) -> float:
    """Returns the operations of one run with the dynamic extents of the given sizes; a multiply-add is two."""
    model = onnx.load(path)
    graph = model.graph
    for value in (*graph.input, *graph.output):
        for extent in value.type.tensor_type.shape.dim:
            if extent.dim_param in sizes:
                extent.dim_value = sizes[extent.dim_param]
    graph = infer_shapes(model, data_prop=True).graph
    shapes = {
        value.name: [extent.dim_value for extent in value.type.tensor_type.shape.dim]
        for value in (*graph.value_info, *graph.input, *graph.output)
    }
    shapes |= {tensor.name: list(tensor.dims) for tensor in graph.initializer}
    return sum(2 * _products(node, shapes) for node in graph.node)


def _products(node: onnx.NodeProto, shapes: dict[str, list[int]]) -> float:
    """Returns how many multiplications with weights a node of an encoder does."""
    if node.op_type == "Conv":
        return float(np.prod(shapes[node.output[0]]) * np.prod(shapes[node.input[1]][1:]))
    if node.op_type in ("Gemm", "MatMul"):
        attributes = {attribute.name: attribute.i for attribute in node.attribute}
        left = shapes[node.input[0]]
        return float(np.prod(shapes[node.output[0]]) * (left[0] if attributes.get("transA") else left[-1]))
    return 0.0
