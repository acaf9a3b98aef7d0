"""The decoder's traced graphs: the first state and the portable single step. Knows nothing of files or encoders."""

import torch
from onnx import ModelProto
from torch import Tensor, nn
from torch.nn import functional

from export.graphs import trace
from training.models.decoder import CaptionDecoder


class _Start(nn.Module):
    def __init__(self, decoder: CaptionDecoder) -> None:
        super().__init__()
        self.decoder = decoder

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        hidden, cell = self.decoder.start(features)
        return hidden, cell.clone() if cell is hidden else cell  # one value cannot be two outputs


class _Step(nn.Module):
    def __init__(self, decoder: CaptionDecoder) -> None:
        super().__init__()
        self.decoder = decoder

    def forward(self, token_ids: Tensor, hidden: Tensor, cell: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        logits, hidden, cell = self.decoder.step(token_ids, hidden, cell)
        return functional.log_softmax(logits, dim=-1), hidden, cell


def init_graph(decoder: CaptionDecoder) -> ModelProto:
    """Exports features (batch, feature_size) -> hidden, cell (batch, units)."""
    features = torch.zeros(2, decoder.config.feature_size)
    model = trace(_Start(decoder), {"features": features}, ["hidden", "cell"], "batch")
    model.graph.name = "decoder_init"
    return model


def step_graph(decoder: CaptionDecoder) -> ModelProto:
    """Exports token_ids (rows), hidden, cell (rows, units) -> log_probs (rows, vocabulary), next_hidden, next_cell."""
    state = torch.zeros(2, decoder.config.units)
    inputs = {"token_ids": torch.zeros(2, dtype=torch.int64), "hidden": state, "cell": state.clone()}
    model = trace(_Step(decoder), inputs, ["log_probs", "next_hidden", "next_cell"], "rows")
    model.graph.name = "decoder_step"
    return model
