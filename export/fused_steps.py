"""The hand-written step of an LSTM, for the decoder that is trained here.

Built node by node rather than traced: the code that runs for every word was chosen by measurement, and the weights keep
the same bytes as in the portable step, so that all graphs share one file. Knows nothing of files or of how words are
chosen.
"""

from collections.abc import Sequence

from torch import nn

from export.graph_builder import GraphBuilder
from training.models.decoder import CaptionDecoder

TABLE_BYTES = 1 << 26
"""Up to this size the input half of the gates is a table with a row per word, which ONNX Runtime computes when it opens
the graph, so that no file stores it. With more words or a larger state the product is computed at every step."""


def fused_step(
    graph: GraphBuilder, decoder: CaptionDecoder, state: Sequence[str], following: Sequence[str], table_bytes: int
) -> str:
    """Adds a step: reads `token_ids` and the gathered state, writes the following one, and returns the logits."""
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
    names = ("admit", "forget", "candidate", "emit")
    graph.node("Split", gates, out=names, axis=1, num_outputs=4)
    admit, forget, emit = (graph.node("Sigmoid", gate) for gate in ("admit", "forget", "emit"))
    kept, new = graph.node("Mul", forget, cell), graph.node("Mul", admit, graph.node("Tanh", "candidate"))
    graph.node("Add", kept, new, out=next_cell)
    graph.node("Mul", emit, graph.node("Tanh", next_cell), out=next_output)
    squeezed = graph.node("Elu", _linear(graph, next_output, "logit_hidden", decoder.logit_hidden))
    tied = decoder.output.weight is decoder.embedding.weight
    return _linear(graph, squeezed, "output", decoder.output, weight=embedding if tied else "")


def _linear(graph: GraphBuilder, x: str, name: str, layer: nn.Linear, weight: str = "") -> str:
    weight = weight or graph.weight(f"{name}.weight", layer.weight)
    return graph.node("Gemm", x, weight, graph.weight(f"{name}.bias", layer.bias), transB=1)
