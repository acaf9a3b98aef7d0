"""float16 graphs for GPUs: weights and arithmetic. Knows nothing of files or of what graphs mean."""

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from export.graphs import clean

FLOAT, HALF = TensorProto.FLOAT, TensorProto.FLOAT16

SUMS = {"LogSoftmax", "Softmax", "ReduceMean", "ReduceSum", "ReduceLogSumExp", "GlobalAveragePool", "Resize"}
"""Sums over a vocabulary or a plane, in which float16 would lose small terms; and Resize, whose scales are float32."""

MAKERS = {"Cast", "Constant", "ConstantOfShape", "Range", "Sub", "Div"}
"""Operators that convert to float, and those that normalise the values while they are exact."""


SELECTION = ("bias", "uniforms", "temperature")
"""Inputs of the token selection; everything computed from them stays in float32."""


def half(model: ModelProto) -> ModelProto:
    """Returns a graph with float16 weights and arithmetic; inputs and outputs stay float32.

    These stay float32 too: the normalisation of pixels, sums over many values, and everything done with
    log-probabilities. Weights outside the range of float16 become infinite, which verification finds.
    """
    inferred = onnx.shape_inference.infer_shapes(model).graph
    types: dict[str, int] = {
        value.name: value.type.tensor_type.elem_type
        for value in (*inferred.input, *inferred.output, *inferred.value_info)
    } | {tensor.name: tensor.data_type for tensor in inferred.initializer}
    converted = ModelProto()
    converted.CopyFrom(model)
    graph = converted.graph
    kept = _in_float32(converted)
    weights = {tensor.name: tensor for tensor in graph.initializer if tensor.data_type == FLOAT}
    outputs = {value.name for value in graph.output}
    own = {name: name for name in types}  # each tensor's name in the type that its producer outputs
    is_half = dict.fromkeys(types, False)
    cast: dict[tuple[str, int], str] = {}
    nodes: list[NodeProto] = []

    def taken_as(name: str, kind: int) -> str:
        """Returns the name of a float tensor in a type, adding the conversion on first use."""
        if types.get(name) != FLOAT or is_half[name] == (kind == HALF):
            return str(own.get(name, name))
        if (name, kind) not in cast:
            cast[name, kind] = f"{name}_{'half' if kind == HALF else 'float'}"
            if name in weights:
                with np.errstate(over="ignore"):
                    values = numpy_helper.to_array(weights[name]).astype(np.float16)
                graph.initializer.append(numpy_helper.from_array(values, cast[name, kind]))
            else:
                made = cast[name, kind]
                nodes.append(helper.make_node("Cast", [own[name]], [made], f"cast_{made}", to=kind))
        return cast[name, kind]

    for node in graph.node:
        kind = FLOAT if node.name in kept else HALF
        node.input[:] = [taken_as(name, kind) for name in node.input]
        for i, name in enumerate(node.output):
            if kind == HALF and types.get(name) == FLOAT:
                is_half[name] = True
                own[name] = node.output[i] = f"{name}_own" if name in outputs else name
        nodes.append(node)
    nodes += [
        helper.make_node("Cast", [own[name]], [name], f"cast_{name}", to=FLOAT)
        for name in sorted(outputs)
        if is_half[name]
    ]
    del graph.node[:]
    graph.node.extend(nodes)
    used = {name for node in nodes for name in node.input}
    for tensor in [tensor for tensor in graph.initializer if tensor.name not in used]:
        graph.initializer.remove(tensor)
    return clean(converted)


def _in_float32(model: ModelProto) -> set[str]:
    """Returns the names of the nodes that keep float32."""
    kept: set[str] = set()
    exact: set[str] = {tensor.name for tensor in model.graph.initializer}  # float32 values computed from other types
    chosen = set(SELECTION)  # computed from log-probabilities
    for node in model.graph.node:
        makes = node.op_type in MAKERS and (node.op_type not in ("Sub", "Div") or exact.issuperset(node.input))
        follows = node.op_type in ("LogSoftmax", "ReduceLogSumExp") or bool(chosen.intersection(node.input))
        if makes:
            exact.update(node.output)
        if follows:
            chosen.update(node.output)
        if makes or follows or node.op_type in SUMS:
            kept.add(node.name)
    return kept
