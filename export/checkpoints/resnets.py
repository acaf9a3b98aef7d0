"""ResNets as networks of features, built to fit weights. Knows torchvision's names; knows no project.

Depth, kind of block and width are read from the weights, so that a captioner whose owner took another ResNet than
its tutorial is imported too.
"""

import copy

import torch
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

from export.checkpoints.states import State, count

DEPTHS = {"resnet18": (2, 2, 2, 2), "resnet34": (3, 4, 6, 3), "resnet50": (3, 4, 6, 3), "resnet101": (3, 4, 23, 3)}
DEPTHS["resnet152"] = (3, 8, 36, 3)
SMALL = ("resnet18", "resnet34")
STRIDE = 32
NAMED = tuple(f"layer{i}." for i in range(1, 5))
"""The stages in torchvision's ResNet."""
NUMBERED = tuple(f"resnet.{i}." for i in range(4, 8))
"""The stages where a ResNet's parts were put into a Sequential named resnet."""


def build(state: State, usual: str, stages: tuple[str, ...] = NAMED) -> ResNet:
    """Builds the ResNet that these weights belong to, with random weights.

    stages: how the names of its four stages begin. usual: the one to take where the weights do not tell.
    """
    first = stages[0] + "0."
    found = tuple(count(state, stage) for stage in stages)
    layers = found if all(found) else DEPTHS[usual]
    deep = f"{first}conv3.weight" in state if all(found) else usual not in SMALL
    groups, per_group = 1, 64
    middle = state.get(f"{first}conv2.weight")
    if deep and middle is not None and middle.ndim == 4 and middle.shape[1]:
        groups = max(1, middle.shape[0] // middle.shape[1])
        per_group = max(1, middle.shape[0] // groups)
    return ResNet(
        Bottleneck if deep else BasicBlock, list(layers), num_classes=1, groups=groups, width_per_group=per_group
    )


def body(network: ResNet) -> nn.Sequential:
    """The parts of a ResNet up to its last grid, in the order and with the numbers that tutorials give them."""
    return nn.Sequential(*list(network.children())[:-2])


def caffe(network: ResNet) -> ResNet:
    """Moves strides and padding to where Caffe's ResNets have them; the weights' names and shapes are the same."""
    network.maxpool = nn.MaxPool2d(kernel_size=3, stride=2, padding=0, ceil_mode=True)
    for stage in (network.layer2, network.layer3, network.layer4):
        stage[0].conv1.stride = (2, 2)
        stage[0].conv2.stride = (1, 1)
    return network


class Grid(nn.Module):
    """Averages planes (batch, channels, h, w) over windows to channels-last (batch, places, places, channels).

    The windows are those of adaptive average pooling, which are the same for all rows and for all columns: the mean
    over a window is a mean over columns of means over rows. As two matrix products it also exports where the grid
    grows.
    """

    rows: Tensor
    columns: Tensor

    def __init__(self, places: int, across: tuple[int, int]) -> None:
        """across: height and width of the grid that comes in."""
        super().__init__()
        self.register_buffer("rows", _windows(across[0], places), persistent=False)
        self.register_buffer("columns", _windows(across[1], places), persistent=False)

    def forward(self, planes: Tensor) -> Tensor:
        """Returns the pooled grid."""
        pooled = torch.matmul(torch.matmul(self.rows, planes), self.columns.mT)
        return pooled.permute(0, 2, 3, 1)


def _windows(given: int, wanted: int) -> Tensor:
    """Weights (wanted, given): place i averages from given * i / wanted up to given * (i + 1) / wanted, rounded out."""
    weights = torch.zeros(wanted, given)
    for i in range(wanted):
        begin, end = given * i // wanted, -(-given * (i + 1) // wanted)
        weights[i, begin:end] = 1 / (end - begin)
    return weights


def grid_size(network: nn.Module, height: int, width: int) -> tuple[int, int]:
    """Height and width of the last grid for pixels of this size, found without computing it."""
    with torch.no_grad():
        shape = copy.deepcopy(network).to("meta").eval()(torch.zeros(1, 3, height, width, device="meta")).shape
    return shape[-2], shape[-1]
