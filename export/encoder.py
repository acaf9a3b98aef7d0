"""The encoder graph: pixels in, features out, normalisation inside. Knows nothing of files or decoders."""

import copy

import torch
from onnx import ModelProto

from export.graphs import trace
from training.models.encoders import Encoder


def encoder_graph(encoder: Encoder) -> ModelProto:
    """Exports pixels uint8 (batch, height, width, 3) -> features float32 (batch, feature_size)."""
    # In PyTorch's channels-last memory order a global pooling is traced as index arithmetic over strides. With weights
    # and planes in the contiguous order it stays one node; ONNX has no memory orders.
    plain = copy.deepcopy(encoder).to(memory_format=torch.contiguous_format)
    pixels = torch.zeros(2, 3, encoder.image.height, encoder.image.width, dtype=torch.uint8).permute(0, 2, 3, 1)
    model = trace(plain, {"pixels": pixels}, ["features"], "batch")
    model.graph.name = "encoder"
    return model
