"""ONNX graphs built node by node. Knows nothing of what they compute."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from onnx import AttributeProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper
from torch import Tensor

from export.errors import ExportError
from export.graphs import OPSET, clean

IR_VERSION = 10


class GraphBuilder:
    """A graph under construction; tensors are referred to by name."""

    def __init__(self) -> None:
        self._nodes: list[Any] = []
        self._weights: dict[str, TensorProto] = {}
        self._inputs: list[Any] = []
        self._outputs: list[Any] = []

    def input(self, name: str, kind: int, *shape: int | str) -> str:
        """Declares an input."""
        self._inputs.append(helper.make_tensor_value_info(name, kind, shape))
        return name

    def output(self, name: str, kind: int, *shape: int | str) -> None:
        """Declares a node's output as an output of the graph."""
        self._outputs.append(helper.make_tensor_value_info(name, kind, shape))

    def weight(self, name: str, value: Tensor | np.ndarray | np.generic | list[int]) -> str:
        """Adds a constant, unless one of the same name exists."""
        if name not in self._weights:
            array = value.detach().numpy() if isinstance(value, Tensor) else np.asarray(value)
            self._weights[name] = numpy_helper.from_array(array, name)
        return name

    def node(self, op: str, *inputs: str, out: str | tuple[str, ...] = "", **attributes: Any) -> str:
        """Adds a node and returns the name of its first output."""
        outputs = [out or f"{op}_{len(self._nodes)}"] if isinstance(out, str) else list(out)
        self._nodes.append(helper.make_node(op, list(inputs), outputs, f"node_{len(self._nodes)}_{op}", **attributes))
        return outputs[0]

    def merge(self, model: ModelProto, names: Mapping[str, str], prefix: str) -> None:
        """Adds the nodes and constants of another graph.

        names: what its inputs and outputs are called here. Its other tensors get the prefix. Raises ExportError for
        control flow, whose inner graphs have names of their own.
        """

        def renamed(name: str) -> str:
            return names.get(name, f"{prefix}{name}") if name else name

        for tensor in model.graph.initializer:
            copy = TensorProto.FromString(tensor.SerializeToString())
            copy.name = renamed(tensor.name)
            self._weights[copy.name] = copy
        for node in model.graph.node:
            if any(attribute.type in (AttributeProto.GRAPH, AttributeProto.GRAPHS) for attribute in node.attribute):
                raise ExportError(f"the decoder's step has control flow ({node.op_type}), which cannot be exported")
            copied = NodeProto.FromString(node.SerializeToString())
            copied.name = f"{prefix}{node.name}"
            copied.input[:] = map(renamed, node.input)
            copied.output[:] = map(renamed, node.output)
            self._nodes.append(copied)

    def model(self, name: str) -> ModelProto:
        """Returns the graph."""
        graph = helper.make_graph(self._nodes, name, self._inputs, self._outputs, list(self._weights.values()))
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
        return clean(model)
