"""The decoder's graphs: the first state, the portable single step, and the fused step of a search.

Knows nothing of files, encoders or how a search chooses.
"""

import torch
from onnx import ModelProto, TensorProto, helper
from torch import Tensor, nn
from torch.nn import functional

from export.graphs import clean, trace
from training.model import CaptionDecoder


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


def search_graph(step: ModelProto) -> ModelProto:
    """Builds the fused step around a copy of `step_graph`'s result.

    In front, hidden and cell (state_rows, units) are gathered by parent_rows (rows); behind, bias (bias_rows,
    vocabulary; bias_rows is 1 or rows) is added to the log-probabilities and the k best are taken: ids int64 and
    log_probs (rows, candidates), best first.
    """
    model = ModelProto()
    model.CopyFrom(step)
    graph = model.graph
    graph.name = "search_step"
    tensors = {value.name: value for value in (*graph.input, *graph.output)}
    units = tensors["hidden"].type.tensor_type.shape.dim[1].dim_value
    vocabulary = tensors["log_probs"].type.tensor_type.shape.dim[1].dim_value
    own = {"hidden": "own_hidden", "cell": "own_cell", "log_probs": "all_log_probs"}
    for node in graph.node:
        node.input[:] = [own.get(name, name) for name in node.input]
        node.output[:] = [own.get(name, name) for name in node.output]
    gathers = [
        helper.make_node("Gather", [name, "parent_rows"], [own[name]], f"gather_{name}", axis=0)
        for name in ("hidden", "cell")
    ]
    select = [
        helper.make_node("Add", ["all_log_probs", "bias"], ["biased_log_probs"], "add_bias"),
        helper.make_node(
            "TopK", ["biased_log_probs", "k"], ["log_probs", "ids"], "select", axis=-1, largest=1, sorted=1
        ),
    ]
    nodes = [*gathers, *graph.node, *select]
    del graph.node[:], graph.input[:], graph.output[:]
    graph.node.extend(nodes)
    value, ids, floats = helper.make_tensor_value_info, TensorProto.INT64, TensorProto.FLOAT
    graph.input.extend(
        [
            value("token_ids", ids, ["rows"]),
            value("parent_rows", ids, ["rows"]),
            value("hidden", floats, ["state_rows", units]),
            value("cell", floats, ["state_rows", units]),
            value("bias", floats, ["bias_rows", vocabulary]),
            value("k", ids, [1]),
        ]
    )
    graph.output.extend(
        [
            value("ids", ids, ["rows", "candidates"]),
            value("log_probs", floats, ["rows", "candidates"]),
            value("next_hidden", floats, ["rows", units]),
            value("next_cell", floats, ["rows", units]),
        ]
    )
    return clean(model)
