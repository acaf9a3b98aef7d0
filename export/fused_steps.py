"""The fused decoder steps: state gather, LSTM cell, logits and selection in one graph per selection method.

Built node by node rather than traced: the code that runs for every word was chosen by measurement
(docs/speed.md), and the weights keep the same bytes as in the portable step, so that all graphs share one file.
Knows nothing of files or of how a search uses the results.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper
from torch import Tensor, nn

from export.graphs import OPSET, clean
from training.models.decoder import CaptionDecoder

TABLE_BYTES = 1 << 26
"""Up to this size the input half of the gates is a table with a row per word, which ONNX Runtime computes when it opens
the graph, so that no file stores it. With more words or units the product is computed at every step."""

IR_VERSION = 10
BLOCK = 64  # words that are skipped at once before the search goes word by word
LOWEST = np.finfo(np.float32).min


def fused_steps(decoder: CaptionDecoder, table_bytes: int = TABLE_BYTES) -> dict[str, ModelProto]:
    """Builds search_step, greedy_step and sample_step.

    All take token_ids, parent_rows int64 (rows), hidden, cell (state_rows, units), from which they gather parent_rows,
    and bias (bias_rows, vocabulary; bias_rows is 1 or rows), which is added to the logits. All return next_hidden,
    next_cell (rows, units), and:

    search_step: the k best; takes k int64 (1), returns ids int64 and log_probs (rows, candidates), best first.
    greedy_step: the best, without softmax; returns ids int64 and logits (rows).
    sample_step: one drawn from p ** (1 / temperature); takes uniforms in (0, 1] and temperature (rows), returns ids
    int64 and log_probs (rows). Each row takes the first word, in order of id, at which the cumulative distribution
    over the words of finite bias reaches its number.
    """
    choices = {"search_step": _search, "greedy_step": _greedy, "sample_step": _sample}
    return {name: _fused_step(name, choose, decoder, table_bytes) for name, choose in choices.items()}


class GraphBuilder:
    """A graph under construction; tensors are referred to by name."""

    def __init__(self) -> None:
        self._nodes: list[Any] = []
        self._weights: dict[str, TensorProto] = {}
        self._inputs: list[Any] = []
        self._outputs: list[Any] = []

    def input(self, name: str, kind: int, *shape: int | str) -> str:
        """Declares an input."""
        self._inputs.append(helper.make_tensor_value_info(name, kind, shape))
        return name

    def output(self, name: str, kind: int, *shape: int | str) -> None:
        """Declares a node's output as an output of the graph."""
        self._outputs.append(helper.make_tensor_value_info(name, kind, shape))

    def weight(self, name: str, value: Tensor | np.ndarray | np.generic | list[int]) -> str:
        """Adds a constant, unless one of the same name exists."""
        if name not in self._weights:
            array = value.detach().numpy() if isinstance(value, Tensor) else np.asarray(value)
            self._weights[name] = numpy_helper.from_array(array, name)
        return name

    def node(self, op: str, *inputs: str, out: str | tuple[str, ...] = "", **attributes: Any) -> str:
        """Adds a node and returns the name of its first output."""
        outputs = [out or f"{op}_{len(self._nodes)}"] if isinstance(out, str) else list(out)
        self._nodes.append(helper.make_node(op, list(inputs), outputs, f"node_{len(self._nodes)}_{op}", **attributes))
        return outputs[0]

    def model(self, name: str) -> ModelProto:
        """Returns the graph."""
        graph = helper.make_graph(self._nodes, name, self._inputs, self._outputs, list(self._weights.values()))
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
        return clean(model)


Choose = Callable[[GraphBuilder, str, int], None]
"""choose(graph, logits, vocabulary) adds the inputs, nodes and outputs that select tokens from logits and bias."""


def _fused_step(name: str, choose: Choose, decoder: CaptionDecoder, table_bytes: int) -> ModelProto:
    graph, sizes = GraphBuilder(), decoder.config
    units, ids, floats = sizes.units, TensorProto.INT64, TensorProto.FLOAT
    graph.input("token_ids", ids, "rows")
    graph.input("parent_rows", ids, "rows")
    for state in ("hidden", "cell"):
        graph.input(state, floats, "state_rows", units)
    graph.input("bias", floats, "bias_rows", sizes.vocabulary_size)
    choose(graph, _logits(graph, decoder, table_bytes), sizes.vocabulary_size)
    for state in ("next_hidden", "next_cell"):
        graph.output(state, floats, "rows", units)
    return graph.model(name)


def _logits(graph: GraphBuilder, decoder: CaptionDecoder, table_bytes: int) -> str:
    """Adds the cell, which writes next_hidden and next_cell, and returns the logits (rows, vocabulary)."""
    sizes = decoder.config
    hidden, cell = (graph.node("Gather", state, "parent_rows", axis=0) for state in ("hidden", "cell"))
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
    gates = graph.node("Gemm", hidden, graph.weight("lstm.hidden_weight", hidden_weight), given, transB=1)
    names = ("admit", "forget", "candidate", "emit")
    graph.node("Split", gates, out=names, axis=1, num_outputs=4)
    admit, forget, emit = (graph.node("Sigmoid", gate) for gate in ("admit", "forget", "emit"))
    kept, new = graph.node("Mul", forget, cell), graph.node("Mul", admit, graph.node("Tanh", "candidate"))
    graph.node("Add", kept, new, out="next_cell")
    graph.node("Mul", emit, graph.node("Tanh", "next_cell"), out="next_hidden")
    squeezed = graph.node("Elu", _linear(graph, "next_hidden", "logit_hidden", decoder.logit_hidden))
    tied = decoder.output.weight is decoder.embedding.weight
    return _linear(graph, squeezed, "output", decoder.output, weight=embedding if tied else "")


def _linear(graph: GraphBuilder, x: str, name: str, layer: nn.Linear, weight: str = "") -> str:
    weight = weight or graph.weight(f"{name}.weight", layer.weight)
    return graph.node("Gemm", x, weight, graph.weight(f"{name}.bias", layer.bias), transB=1)


def _search(graph: GraphBuilder, logits: str, vocabulary: int) -> None:
    graph.input("k", TensorProto.INT64, 1)
    biased = graph.node("Add", graph.node("LogSoftmax", logits, axis=1), "bias")
    graph.node("TopK", biased, "k", out=("log_probs", "ids"), axis=1)
    graph.output("ids", TensorProto.INT64, "rows", "candidates")
    graph.output("log_probs", TensorProto.FLOAT, "rows", "candidates")


def _greedy(graph: GraphBuilder, logits: str, vocabulary: int) -> None:
    one = graph.weight("one", [1])
    graph.node("TopK", graph.node("Add", logits, "bias"), one, out=("best_logits", "best_ids"), axis=1)
    graph.node("Squeeze", "best_ids", one, out="ids")
    graph.node("Squeeze", "best_logits", one, out="logits")
    graph.output("ids", TensorProto.INT64, "rows")
    graph.output("logits", TensorProto.FLOAT, "rows")


def _sample(graph: GraphBuilder, logits: str, vocabulary: int) -> None:
    graph.input("uniforms", TensorProto.FLOAT, "rows")
    graph.input("temperature", TensorProto.FLOAT, "rows")
    one = graph.weight("one", [1])
    biased = graph.node("Add", graph.node("LogSoftmax", logits, axis=1), "bias")
    # if all words are forbidden the best is -inf, and -inf minus -inf would be NaN
    best = graph.node("Max", graph.node("ReduceMax", biased, one), graph.weight("lowest", LOWEST))
    heat = graph.node("Unsqueeze", "temperature", one)  # (rows, 1)
    mass = graph.node("Exp", graph.node("Div", graph.node("Sub", biased, best), heat))
    # two levels, first the block and then the word in it: a CumSum over all words takes longer than their logits
    axis, blocks = graph.weight("sum_axis", np.int64(1)), -(-vocabulary // BLOCK)
    padded = graph.node("Pad", mass, graph.weight("padding", [0, 0, 0, blocks * BLOCK - vocabulary]))
    by_block = graph.node("Reshape", padded, graph.weight("block_shape", [-1, blocks, BLOCK]))
    sums = graph.node("ReduceSum", by_block, graph.weight("last_axis", [2]), keepdims=0)  # (rows, blocks)
    reached = graph.node("CumSum", sums, axis)  # (rows, blocks)
    target = graph.node("Mul", graph.node("Unsqueeze", "uniforms", one), _last(graph, reached, blocks))
    block = _reach(graph, reached, target)  # (rows, 1)
    words = graph.node("GatherND", by_block, block, batch_dims=1)  # (rows, BLOCK)
    before = graph.node("GatherElements", graph.node("CumSum", sums, axis, exclusive=1), block, axis=1)
    rest = graph.node("Max", graph.node("Sub", target, before), graph.weight("tiny", np.finfo(np.float32).tiny))
    reached = graph.node("CumSum", words, axis)
    rest = graph.node("Min", rest, _last(graph, reached, BLOCK))  # summed in another order, it may fall short
    word = _reach(graph, reached, rest)
    column = graph.node("Add", graph.node("Mul", block, graph.weight("block", [BLOCK])), word)
    graph.node("Squeeze", column, one, out="ids")
    graph.node("Squeeze", graph.node("GatherElements", biased, column, axis=1), one, out="log_probs")
    graph.output("ids", TensorProto.INT64, "rows")
    graph.output("log_probs", TensorProto.FLOAT, "rows")


def _last(graph: GraphBuilder, values: str, count: int) -> str:
    """Returns the last of values (rows, count): (rows, 1)."""
    return graph.node("Gather", values, graph.weight(f"last_of_{count}", [count - 1]), axis=1)


def _reach(graph: GraphBuilder, cumulative: str, target: str) -> str:
    """Returns the first index at which rising values (rows, any) reach the target (rows, 1): int64 (rows, 1)."""
    short = graph.node("Cast", graph.node("Less", cumulative, target), to=TensorProto.FLOAT)
    return graph.node("Cast", graph.node("ReduceSum", short, "one"), to=TensorProto.INT64)
