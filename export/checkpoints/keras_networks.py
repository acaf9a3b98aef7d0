"""VGG16 and InceptionV3 with the weights that Keras's applications have, as networks of features.

Keras's weights are not torchvision's: VGG16 reads blue, green, red without a deviation, and InceptionV3 leaves the
border out of its mean pooling. A captioner that was trained on Keras's features needs these.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models.inception import BasicConv2d, Inception3

from export.checkpoints.keras_files import Layer, natural, read_keras
from export.checkpoints.states import load, misfits
from export.errors import ExportError

VGG_BLOCKS = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
VGG_DENSE = 4096


@dataclass(frozen=True, slots=True)
class Network:
    """A network from normalised pixels to one vector, and what Keras's preprocess_input does before it."""

    module: nn.Module
    features: int
    side: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


def network(name: str, weights: str) -> Network:
    """Builds vgg16 or inception_v3. weights: a file of Keras, or "random". Raises ExportError that lists all faults."""
    if name not in NETWORKS:
        raise ExportError(f"the network {name} of Keras cannot be read: choose {' or '.join(NETWORKS)} with --encoder")
    layers: Sequence[Layer] = []
    if weights != "random":
        file = read_keras(Path(weights))
        if not file.named:  # their order is that of the model, in which InceptionV3's branches are mixed
            raise ExportError(
                f"{weights} does not have the names of its layers: pass the file that Keras keeps in ~/.keras/models, "
                "or save the network as .keras"
            )
        layers = file.weighted
    found, faults = NETWORKS[name](layers)
    if faults:
        raise ExportError(f"{weights} does not have Keras's weights of {name}: {'; '.join(faults)}")
    return found


class Flatten(nn.Module):
    """Flattens planes in Keras's order: rows, columns, channels."""

    def forward(self, planes: Tensor) -> Tensor:
        """Turns (batch, channels, height, width) into (batch, height * width * channels)."""
        return planes.permute(0, 2, 3, 1).flatten(1)


def _vgg16(layers: Sequence[Layer]) -> tuple[Network, list[str]]:
    """Blocks of convolutions, then fc1 and fc2; its widths are those of the weights."""
    named = {layer.name: layer.arrays for layer in layers}
    parts: list[tuple[str, nn.Module]] = []
    channels, side = 3, 224
    for i, block in enumerate(VGG_BLOCKS, 1):
        for j, width in enumerate(block, 1):
            name = f"block{i}_conv{j}"
            width = named[name][0].shape[-1] if named.get(name) else width
            parts += [(name, nn.Conv2d(channels, width, 3, padding=1)), (f"{name}_relu", nn.ReLU())]
            channels = width
        parts.append((f"block{i}_pool", nn.MaxPool2d(2)))
        side //= 2
    parts.append(("flatten", Flatten()))
    inputs = side * side * channels
    for name in ("fc1", "fc2"):
        width = named[name][0].shape[-1] if named.get(name) else VGG_DENSE
        parts += [(name, nn.Linear(inputs, width)), (f"{name}_relu", nn.ReLU())]
        inputs = width
    module = nn.Sequential()
    for name, part in parts:
        module.add_module(name, part)
    state = {} if layers else dict(module.state_dict())
    for name, arrays in named.items():
        if name != "predictions":  # the classes of ImageNet
            state |= dict(zip((f"{name}.weight", f"{name}.bias"), map(_torch, arrays), strict=False))
    if layers and "block1_conv1.weight" in state:
        state["block1_conv1.weight"] = state["block1_conv1.weight"].flip(1)  # pixels come as red, green, blue
    faults = misfits(module, state)
    if not faults:
        load(module, state)
    return Network(module, inputs, 224, (123.68, 116.779, 103.939), (1.0, 1.0, 1.0)), faults


class Borderless(nn.Module):
    """Turns a mean over 3 x 3 places that counts the border as zeros into one that leaves it out."""

    def forward(self, planes: Tensor) -> Tensor:
        """Returns planes of the same shape."""
        ones = torch.ones(1, 1, *planes.shape[2:], dtype=planes.dtype, device=planes.device)
        return planes / functional.avg_pool2d(ones, 3, stride=1, padding=1)


def _inception_v3(layers: Sequence[Layer]) -> tuple[Network, list[str]]:
    """Keras numbers convolutions as it makes them, in the order in which torchvision's network defines its own."""
    module = Inception3(aux_logits=False, transform_input=False, init_weights=False)
    module.fc = nn.Identity()
    module.dropout = nn.Identity()
    state = dict(module.state_dict())
    if layers:
        ordered = sorted(layers, key=lambda layer: natural(layer.name))
        units = [name for name, part in module.named_modules() if isinstance(part, BasicConv2d)]
        kernels = [layer.arrays[0] for layer in ordered if [a.ndim for a in layer.arrays] == [4]]
        norms = [layer.arrays for layer in ordered if [a.ndim for a in layer.arrays] == [1, 1, 1]]  # without a scale
        named = [f"{unit}.conv.weight" for unit in units]
        state = dict(zip(named, map(_torch, kernels), strict=False))
        state |= {f"{unit}.bn.weight": torch.ones(len(norm[0])) for unit, norm in zip(units, norms, strict=False)}
        for unit, norm in zip(units, norms, strict=False):
            keys = (f"{unit}.bn.{key}" for key in ("bias", "running_mean", "running_var"))
            state |= dict(zip(keys, map(_torch, norm), strict=True))
    faults = misfits(module, state)
    if not faults:
        load(module, state)
    for block in module.children():
        if hasattr(block, "branch_pool"):
            block.branch_pool = nn.Sequential(Borderless(), block.branch_pool)
    return Network(module, 2048, 299, (127.5,) * 3, (127.5,) * 3), faults


def _torch(array: np.ndarray) -> Tensor:
    """Turns Keras's array into PyTorch's: inputs last in dense layers, channels first in convolutions."""
    order = {2: (1, 0), 4: (3, 2, 0, 1)}.get(array.ndim, tuple(range(array.ndim)))
    return torch.from_numpy(np.ascontiguousarray(array.transpose(order), dtype=np.float32))


NETWORKS = {"vgg16": _vgg16, "inception_v3": _inception_v3}
