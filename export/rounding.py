"""Rounds convolution weights to integers times a scale per output channel. Knows nothing of activations' ranges and
writes no quantised graph: the weights stay floats, on that grid.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from onnx import ModelProto, NodeProto, helper, numpy_helper

WIDE, NARROW = 127, 64
"""Largest integers of 8 and 7 bits. Without VNNI, an x86 processor adds two products of a uint8 and a weight in 16
bits, which can saturate; 2 x 255 x 64 fits. ONNX Runtime computes depthwise convolutions in 32 bits, so theirs are
wide."""


@dataclass(frozen=True, slots=True)
class Grid:
    """The scales of one weight tensor, float32 (output channels,)."""

    weight: str
    scales: np.ndarray


def round_weights(
    model: ModelProto, names: Iterable[str], means: Mapping[str, np.ndarray], *, narrow: bool = True
) -> tuple[Grid, ...]:
    """Rounds the weights of the named convolutions in place, and corrects their biases.

    means: of each activation that they read, float32 (channels,). The rounding errors of a channel's weights times
    those means would shift everything the channel computes; its bias compensates (bias correction, Nagel et al.,
    "Data-Free Quantization Through Weight Equalization and Bias Correction", ICCV 2019, section 4.2, with measured
    means). A convolution without bias gets one.
    """
    graph = model.graph
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    grids = []
    chosen = set(names)
    for node in graph.node:
        if node.name not in chosen:
            continue
        weight = numpy_helper.to_array(tensors[node.input[1]]).astype(np.float64)  # (units, channels / groups, ...)
        groups = _groups(node)
        depthwise = groups > 1 and weight.shape[1] == 1
        limit = WIDE if depthwise or not narrow else NARROW
        flat = weight.reshape(len(weight), -1)
        scales = np.maximum(np.abs(flat).max(axis=1) / limit, 1e-12).astype(np.float32)
        rounded = np.round(flat / scales[:, None]).clip(-limit, limit) * scales[:, None]
        error = (rounded - flat).reshape(*weight.shape[:2], -1).sum(axis=2)  # (units, channels / groups)
        read = means[node.input[0]].reshape(groups, -1).repeat(len(weight) // groups, axis=0)
        shift = (error * read).sum(axis=1)  # (units,)
        bias = numpy_helper.to_array(tensors[node.input[2]]) if len(node.input) > 2 else np.float32(0)
        made = {f"{node.name}_weight": rounded.reshape(weight.shape), f"{node.name}_bias": bias - shift}
        graph.initializer.extend(numpy_helper.from_array(a.astype(np.float32), name) for name, a in made.items())
        node.input[:] = [node.input[0], *made]
        grids.append(Grid(f"{node.name}_weight", scales))
    return tuple(grids)


def _groups(node: NodeProto) -> int:
    return next((helper.get_attribute_value(a) for a in node.attribute if a.name == "group"), 1)
