"""How a step chooses words from logits and bias: nodes at the end of its graph. Knows nothing of decoders."""

from collections.abc import Callable

import numpy as np
from onnx import TensorProto

from export.graph_builder import GraphBuilder

BLOCK = 64  # words that are skipped at once before the search goes word by word
LOWEST = np.finfo(np.float32).min

Choose = Callable[[GraphBuilder, str, int], None]
"""choose(graph, logits, vocabulary) adds the inputs, nodes and outputs that select words from logits and `bias`."""


def search(graph: GraphBuilder, logits: str, vocabulary: int) -> None:
    """Adds the choice of the k best: takes k int64 (1), gives ids int64 and log_probs (rows, candidates)."""
    graph.input("k", TensorProto.INT64, 1)
    biased = graph.node("Add", graph.node("LogSoftmax", logits, axis=1), "bias")
    graph.node("TopK", biased, "k", out=("log_probs", "ids"), axis=1)
    graph.output("ids", TensorProto.INT64, "rows", "candidates")
    graph.output("log_probs", TensorProto.FLOAT, "rows", "candidates")


def sample(graph: GraphBuilder, logits: str, vocabulary: int) -> None:
    """Adds the draw of one word from p ** (1 / temperature), p being the distribution over the words of finite bias.

    It takes uniforms in (0, 1] and temperature (rows), and gives ids int64 and log_probs (rows). Each row takes the
    first word, in order of id, at which the cumulative distribution reaches its number.
    """
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
