"""The hand-written step of an LSTM, with attention or without, for the decoders that are trained here.

Built node by node rather than traced: the code that runs for every word was chosen by measurement, and the weights keep
the same bytes as in the portable step, so that all graphs share one file. Knows nothing of files or of how words are
chosen.
"""

from collections.abc import Sequence

from torch import nn

from export.graph_builder import GraphBuilder
from training.models.attention import Attention, AttentionDecoder
from training.models.decoder import CaptionDecoder

TABLE_BYTES = 1 << 26
"""Up to this size the input half of the gates is a table with a row per word, which ONNX Runtime computes when it opens
the graph, so that no file stores it. With more words or a larger state the product is computed at every step."""


def fused_step(
    graph: GraphBuilder,
    decoder: CaptionDecoder,
    state: Sequence[str],
    context: Sequence[str],
    following: Sequence[str],
    table_bytes: int,
) -> str:
    """Adds a step: reads `token_ids` and gathered state and context, writes the next state, and returns the logits."""
    sizes = decoder.config
    output, cell = state
    next_output, next_cell = following
    input_weight, hidden_weight, input_bias, hidden_bias = decoder.lstm.all_weights[0]
    embedding = graph.weight("embedding.weight", decoder.embedding.weight)
    gate_weights = [
        graph.weight("lstm.input_weight", input_weight),
        graph.weight("lstm.bias", input_bias + hidden_bias),
    ]
    if 4 * sizes.vocabulary_size * 4 * sizes.units <= table_bytes:
        table = graph.node("Gemm", embedding, *gate_weights, transB=1)  # (vocabulary, 4 * units), constant
        given = graph.node("Gather", table, "token_ids", axis=0)
    else:
        given = graph.node("Gemm", graph.node("Gather", embedding, "token_ids", axis=0), *gate_weights, transB=1)
    gates = graph.node("Gemm", output, graph.weight("lstm.hidden_weight", hidden_weight), given, transB=1)
    if isinstance(decoder, AttentionDecoder):
        look = _look(graph, decoder.attention, output, *context)
        gates = _linear(graph, look, "attention.to_gates", decoder.attention.to_gates, plus=gates)
    names = ("admit", "forget", "candidate", "emit")
    graph.node("Split", gates, out=names, axis=1, num_outputs=4)
    admit, forget, emit = (graph.node("Sigmoid", gate) for gate in ("admit", "forget", "emit"))
    kept, new = graph.node("Mul", forget, cell), graph.node("Mul", admit, graph.node("Tanh", "candidate"))
    graph.node("Add", kept, new, out=next_cell)
    graph.node("Mul", emit, graph.node("Tanh", next_cell), out=next_output)
    squeezed = _linear(graph, next_output, "logit_hidden", decoder.logit_hidden)
    if isinstance(decoder, AttentionDecoder):
        squeezed = _linear(graph, look, "attention.to_logits", decoder.attention.to_logits, plus=squeezed)
    tied = decoder.output.weight is decoder.embedding.weight
    return _linear(graph, graph.node("Elu", squeezed), "output", decoder.output, weight=embedding if tied else "")


def _look(graph: GraphBuilder, attention: Attention, hidden: str, keys: str, values: str) -> str:
    """Adds what attention sees, (rows, value_size), by the hidden state before the word."""
    query = graph.node("Unsqueeze", _linear(graph, hidden, "attention.query", attention.query), _axis(graph, 1))
    compared = graph.node("Tanh", graph.node("Add", keys, query))  # (rows, cells, attention_size)
    energy = graph.weight("attention.energy", attention.energy.weight.T.contiguous())  # (attention_size, 1)
    energies = graph.node("Squeeze", graph.node("MatMul", compared, energy), _axis(graph, 2))
    weights = graph.node("Unsqueeze", graph.node("Softmax", energies, axis=1), _axis(graph, 1))  # (rows, 1, cells)
    mean = graph.node("Squeeze", graph.node("MatMul", weights, values), _axis(graph, 1))
    return graph.node("Mul", mean, graph.node("Sigmoid", _linear(graph, hidden, "attention.gate", attention.gate)))


def _axis(graph: GraphBuilder, axis: int) -> str:
    return graph.weight(f"axis_{axis}", [axis])


def _linear(graph: GraphBuilder, x: str, name: str, layer: nn.Linear, weight: str = "", plus: str = "") -> str:
    """Adds a layer; plus: a tensor to add, for a layer without a bias."""
    assert not plus or layer.bias is None
    weight = weight or graph.weight(f"{name}.weight", layer.weight)
    plus = plus or ("" if layer.bias is None else graph.weight(f"{name}.bias", layer.bias))
    return graph.node("Gemm", x, weight, *([plus] if plus else []), transB=1)
