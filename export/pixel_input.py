"""Feeds uint8 pixels directly to the first convolution of a quantised encoder.

(pixels - zero point) * scale is exactly what DequantizeLinear computes, so a quantised encoder needs no arithmetic for
the normalisation. Knows nothing of ranges or of how the rest is quantised.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

HEAD = ("Transpose", "Cast", "Sub", "Div")


@dataclass(frozen=True, slots=True)
class PixelInput:
    """What replaces the removed head: `name` (batch, 3, height, width) is (pixels - zero_point) * scale."""

    name: str
    scale: np.float32
    zero_point: np.uint8
    pixels: Any  # the ValueInfoProto of the encoder's input, uint8 (batch, height, width, 3)
    perm: tuple[int, ...]

    @property
    def range(self) -> tuple[float, float]:
        """The values of the pixels 0 and 255."""
        black, white = ((value - float(self.zero_point)) * float(self.scale) for value in (0, 255))
        return black, white

    def planes(self, pixels: np.ndarray) -> np.ndarray:
        """Returns the input of the headless encoder for uint8 pixels (batch, height, width, 3)."""
        return ((pixels.transpose(self.perm) - np.float32(self.zero_point)) * self.scale).astype(np.float32)


def cut_head(model: ModelProto) -> PixelInput | None:
    """Removes (pixels - mean) / std from an encoder in place, and returns its replacement, or None if there is none.

    Channels of different mean and std are folded into the first convolution's weights and bias. A convolution that
    pads puts zeros beyond the border, which then stand for the zero point and not for the channel's mean. That is
    allowed up to half a pixel step, the error that pixels have anyway.
    """
    graph = model.graph
    head = _head(graph)
    if head is None:
        return None
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    mean, std = (constants.get(node.input[1]) for node in head[2:])
    if mean is None or std is None:
        return None
    mean, std = (np.broadcast_to(values.astype(np.float64).ravel(), 3) for values in (mean, std))  # per channel
    zero_point = np.uint8(np.clip(np.floor(mean.mean()), 0, 255))
    convolutions = [node for node in graph.node if head[-1].output[0] in node.input]
    off_centre = np.abs(mean - zero_point).max()
    if not all(_takes(node, head[-1].output[0]) and (off_centre <= 0.5 or not _pads(node)) for node in convolutions):
        return None
    weights = {node.input[1] for node in convolutions}
    if not weights <= constants.keys() or any(
        name in weights for node in graph.node if node not in convolutions for name in node.input
    ):
        return None
    scale = np.float32(1 / std[0])
    if off_centre or (std != std[0]).any():
        for node in convolutions:
            _fold(graph, node, constants, gain=std[0] / std, offset=(zero_point - mean) / std)
    (value,) = (value for value in graph.input if value.name == head[0].input[0])
    planes = PixelInput(head[-1].output[0], scale, zero_point, value, tuple(_attribute(head[0], "perm")))
    for node in head:
        graph.node.remove(node)
    batch, height, width, channels = (dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim)
    del graph.input[:]
    graph.input.append(helper.make_tensor_value_info(planes.name, TensorProto.FLOAT, [batch, channels, height, width]))
    return planes


def join_head(model: ModelProto, planes: PixelInput) -> None:
    """Replaces the input's QuantizeLinear by the transposed pixels; if there is none, dequantises them."""
    graph = model.graph
    quantised = [node for node in graph.node if node.op_type == "QuantizeLinear" and node.input[0] == planes.name]
    for node in quantised:
        graph.node.remove(node)
    names = [node.output[0] for node in quantised] or [f"{planes.name}_pixels"]
    transposes = [
        helper.make_node("Transpose", [planes.pixels.name], [name], f"transpose_{name}", perm=planes.perm)
        for name in names
    ]
    for node in (*reversed(transposes),):
        graph.node.insert(0, node)
    if not quantised:
        constants = {"pixel_scale": planes.scale, "pixel_zero_point": planes.zero_point}
        graph.initializer.extend(numpy_helper.from_array(np.asarray(v), name) for name, v in constants.items())
        inputs = [names[0], *constants]
        graph.node.insert(1, helper.make_node("DequantizeLinear", inputs, [planes.name], "dequantise_pixels"))
    del graph.input[:]
    graph.input.append(planes.pixels)


def _head(graph: GraphProto) -> tuple[NodeProto, ...] | None:
    """Returns the normalising nodes, in order, if they are a chain that nothing else reads from."""
    if len(graph.input) != 1:
        return None
    found: list[NodeProto] = []
    name = graph.input[0].name
    for op_type in HEAD:
        readers = [node for node in graph.node if name in node.input]
        if len(readers) != 1 or readers[0].op_type != op_type or readers[0].input[0] != name:
            return None
        found.append(readers[0])
        name = readers[0].output[0]
    return tuple(found)


def _takes(node: NodeProto, name: str) -> bool:
    return bool(node.op_type == "Conv" and node.input[0] == name and _attribute(node, "group", 1) == 1)


def _pads(node: NodeProto) -> bool:
    return any(_attribute(node, "pads", ())) or _attribute(node, "auto_pad", b"NOTSET") not in (b"NOTSET", b"VALID")


def _attribute(node: NodeProto, name: str, usual: Any = None) -> Any:
    found: Iterable[Any] = (helper.get_attribute_value(a) for a in node.attribute if a.name == name)
    return next(iter(found), usual)


def _fold(
    graph: GraphProto, node: NodeProto, constants: dict[str, np.ndarray], gain: np.ndarray, offset: np.ndarray
) -> None:
    """Folds gain * x + offset, per channel (3,), into a convolution, which then takes x."""
    weight = constants[node.input[1]].astype(np.float64)  # (units, 3, height, width)
    bias = constants[node.input[2]].astype(np.float64) if len(node.input) > 2 else np.zeros(len(weight))
    bias = bias + np.einsum("ocij,c->o", weight, offset)
    folded = {f"{node.name}_weight": weight * gain[:, None, None], f"{node.name}_bias": bias}
    graph.initializer.extend(
        numpy_helper.from_array(values.astype(np.float32), name) for name, values in folded.items()
    )
    node.input[:] = [node.input[0], *folded]
