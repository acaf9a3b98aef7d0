"""The ResNet is the one that the weights belong to, and a grid is averaged as PyTorch does."""

import pytest
import torch
import torchvision
from torch import nn

from export.checkpoints.resnets import NUMBERED, Grid, body, build, grid_size


@pytest.mark.parametrize(
    "name", ["resnet18", "resnet34", "resnet50", "resnet152", "wide_resnet50_2", "resnext50_32x4d"]
)
def test_depth_and_width_are_read_from_the_weights(name: str) -> None:
    with torch.device("meta"):
        network = getattr(torchvision.models, name)()
        parts = nn.ModuleDict({"resnet": body(network)})
        for built in (build(network.state_dict(), "resnet101"), build(parts.state_dict(), "resnet101", NUMBERED)):
            shapes = {n: t.shape for n, t in body(built).state_dict().items()}
            assert shapes == {n: t.shape for n, t in body(network).state_dict().items()}


def test_without_weights_it_is_the_projects_usual_one() -> None:
    with torch.device("meta"):
        assert sum(p.numel() for p in body(build({}, "resnet101")).parameters()) == 42_500_160


@pytest.mark.parametrize("given", [(8, 8), (14, 14), (2, 3), (20, 15), (28, 14)])
def test_a_grid_is_averaged_as_adaptive_pooling_does(given: tuple[int, int]) -> None:
    planes = torch.rand(2, 5, *given)
    expected = nn.AdaptiveAvgPool2d(14)(planes).permute(0, 2, 3, 1)
    torch.testing.assert_close(Grid(14, given)(planes), expected)


def test_the_size_of_the_grid_is_found_without_computing_it() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2), nn.MaxPool2d(2))
    assert grid_size(network, 33, 21) == (8, 5)
    assert next(network.parameters()).device.type == "cpu"
