"""Ways to compute one step of a decode, side by side: `python -m benchmarks.step_variants`.

Prints tables of milliseconds, the quickest and the middle of runs that take turns: ways to compute the cell, ways to
choose a word, and the steps as they are exported, in fp32 and in INT8. The exact ways must agree with the first of
their table before they are timed; of INT8 the error is printed.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Sequence

import numpy as np
import onnxruntime as ort
import torch
from onnx import ModelProto, TensorProto

from export.decoder_int8 import quantise_step
from export.fused_steps import GraphBuilder, fused_steps
from training.models.decoder import CaptionDecoder, DecoderConfig

ROWS = (1, 8, 32, 96, 160)
FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64
Add = Callable[[GraphBuilder, CaptionDecoder], str]


def build(decoder: CaptionDecoder, cell: Add, choose: Callable[[GraphBuilder, str], None]) -> ModelProto:
    """Builds a step; `cell` returns the logits and writes the next state, `choose` writes ids and perhaps log_probs."""
    graph, units = GraphBuilder(), decoder.config.units
    graph.input("token_ids", INT64, "rows")
    graph.input("parent_rows", INT64, "rows")
    graph.input("hidden", FLOAT, "state_rows", units)
    graph.input("cell", FLOAT, "state_rows", units)
    for name in ("hidden", "cell"):
        graph.node("Gather", name, "parent_rows", out=f"own_{name}", axis=0)
    input_weight, hidden_weight, input_bias, hidden_bias = decoder.lstm.all_weights[0]
    for name, weight in (("x", input_weight), ("h", hidden_weight), ("gate_bias", input_bias + hidden_bias)):
        graph.weight(name, weight)
    graph.weight("embedding", decoder.embedding.weight)
    choose(graph, cell(graph, decoder))
    for name in ("next_hidden", "next_cell"):
        graph.output(name, FLOAT, "rows", units)
    model = graph.model("step")
    used = {name for node in model.graph.node for name in node.input}
    kept = [tensor for tensor in model.graph.initializer if tensor.name in used]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    return model


def two_products(graph: GraphBuilder, decoder: CaptionDecoder) -> str:
    """One product for the word and one for the state."""
    word = graph.node("Gather", "embedding", "token_ids", axis=0)
    given = graph.node("Gemm", word, "x", "gate_bias", transB=1)
    return _after(graph, decoder, graph.node("Add", given, graph.node("Gemm", "own_hidden", "h", transB=1)))


def one_product(graph: GraphBuilder, decoder: CaptionDecoder) -> str:
    """One product for [word, state]."""
    both = graph.weight("both", torch.cat(tuple(decoder.lstm.all_weights[0][:2]), dim=1))
    joined = graph.node("Concat", graph.node("Gather", "embedding", "token_ids", axis=0), "own_hidden", axis=1)
    return _after(graph, decoder, graph.node("Gemm", joined, both, "gate_bias", transB=1))


def lstm_op(graph: GraphBuilder, decoder: CaptionDecoder) -> str:
    """ONNX's LSTM over a sequence of one word."""
    order = [0, 3, 1, 2]  # ONNX has the gates as input, output, forget, candidate

    def gates(*weights: torch.Tensor) -> torch.Tensor:
        parts = [torch.cat([weight.detach().chunk(4)[gate] for gate in order]) for weight in weights]
        return torch.cat(parts)[None]

    x, h, bx, bh = decoder.lstm.all_weights[0]
    names = [graph.weight(f"op_{i}", value) for i, value in enumerate((gates(x), gates(h), gates(bx, bh)))]
    first = graph.weight("first", [0])
    words, hidden, cell = (
        graph.node("Unsqueeze", value, first)
        for value in (graph.node("Gather", "embedding", "token_ids", axis=0), "own_hidden", "own_cell")
    )
    outputs = ("all", "last_hidden", "last_cell")
    graph.node("LSTM", words, *names, "", hidden, cell, out=outputs, hidden_size=decoder.config.units)
    graph.node("Squeeze", "last_hidden", first, out="next_hidden")
    graph.node("Squeeze", "last_cell", first, out="next_cell")
    return _logits(graph, decoder)


def table(graph: GraphBuilder, decoder: CaptionDecoder) -> str:
    """A table of what each word gives, and one product for the state."""
    rows = graph.node("Gather", graph.node("Gemm", "embedding", "x", "gate_bias", transB=1), "token_ids", axis=0)
    return _after(graph, decoder, graph.node("Gemm", "own_hidden", "h", rows, transB=1))


def _after(graph: GraphBuilder, decoder: CaptionDecoder, gates: str) -> str:
    graph.node("Split", gates, out=("admit", "forget", "candidate", "emit"), axis=1, num_outputs=4)
    admit, forget, emit = (graph.node("Sigmoid", gate) for gate in ("admit", "forget", "emit"))
    new = graph.node("Mul", admit, graph.node("Tanh", "candidate"))
    graph.node("Add", graph.node("Mul", forget, "own_cell"), new, out="next_cell")
    graph.node("Mul", emit, graph.node("Tanh", "next_cell"), out="next_hidden")
    return _logits(graph, decoder)


def _logits(graph: GraphBuilder, decoder: CaptionDecoder) -> str:
    squeeze, output = decoder.logit_hidden, decoder.output
    weights = graph.weight("l", squeeze.weight), graph.weight("bl", squeeze.bias)
    narrow = graph.node("Gemm", "next_hidden", *weights, transB=1)
    return graph.node("Gemm", graph.node("Elu", narrow), "embedding", graph.weight("bo", output.bias), transB=1)


def _bias(graph: GraphBuilder, scores: str) -> str:
    return graph.node("Add", scores, graph.input("bias", FLOAT, 1, "vocabulary"))


def _top(graph: GraphBuilder, scores: str, values: str = "log_probs") -> None:
    graph.node("TopK", scores, graph.input("k", INT64, 1), out=(values, "ids"), axis=1)
    graph.output("ids", INT64, "rows", "candidates")
    graph.output("log_probs", FLOAT, "rows", "candidates")


def softmax_bias_top(graph: GraphBuilder, logits: str) -> None:
    """Log-softmax, bias, the k best."""
    _top(graph, _bias(graph, graph.node("LogSoftmax", logits, axis=1)))


def softmax_top(graph: GraphBuilder, logits: str) -> None:
    """The same without any bias."""
    _top(graph, graph.node("LogSoftmax", logits, axis=1))


def top_sum(graph: GraphBuilder, logits: str) -> None:
    """The k best of the logits, of which only those are normalised, by the log-sum-exp of all."""
    _top(graph, _bias(graph, logits), "best")
    total = graph.node("ReduceLogSumExp", logits, graph.weight("last_axis", [1]))
    graph.node("Sub", "best", total, out="log_probs")


def top_only(graph: GraphBuilder, logits: str) -> None:
    """The k best of the logits, nothing normalised."""
    _top(graph, _bias(graph, logits))


def argmax(graph: GraphBuilder, logits: str) -> None:
    """The best logit's place alone."""
    graph.node("ArgMax", _bias(graph, logits), out="ids", axis=1)
    graph.output("ids", INT64, "rows", 1)


def variants(decoder: CaptionDecoder, k: int) -> dict[str, dict[str, ModelProto]]:
    """Returns the tables' entries; the first of each is what the others must agree with."""
    ways = (softmax_bias_top, softmax_top, top_sum, *((top_only, argmax) if k == 1 else ()))
    cells = (two_products, one_product, lstm_op, table)
    fused = fused_steps(decoder)
    return {
        "the cell": {way.__name__: build(decoder, way, softmax_bias_top) for way in cells},
        "the choice": {way.__name__: build(decoder, table, way) for way in ways},
        "as exported": fused | {f"{name}, int8": quantise_step(graph) for name, graph in fused.items()},
    }


class Timed:
    """A step bound to inputs, which are the same for every variant."""

    def __init__(self, graph: ModelProto, decoder: CaptionDecoder, rows: int, k: int) -> None:
        options = ort.SessionOptions()
        options.inter_op_num_threads = 1
        began = time.perf_counter()
        self._session = ort.InferenceSession(graph.SerializeToString(), options)
        self.load = time.perf_counter() - began
        random, sizes = np.random.default_rng(0), decoder.config
        words = sizes.vocabulary_size
        feed = {
            "token_ids": random.integers(0, words, rows),
            "parent_rows": random.integers(0, rows, rows),
            "hidden": random.uniform(-1, 1, (rows, sizes.units)).astype(np.float32),
            "cell": random.standard_normal((rows, sizes.units), dtype=np.float32),
            "bias": np.zeros((1, words), np.float32),
            "k": np.array([k]),
            "uniforms": 1 - random.random(rows, dtype=np.float32),
            "temperature": np.ones(rows, np.float32),
        }
        self._binding = self._session.io_binding()
        for value in self._session.get_inputs():
            self._binding.bind_cpu_input(value.name, feed[value.name])
        for value in self._session.get_outputs():
            self._binding.bind_output(value.name)
        self.seconds: list[float] = []

    def run(self) -> None:
        began = time.perf_counter()
        self._session.run_with_iobinding(self._binding)
        self.seconds.append(time.perf_counter() - began)

    def outputs(self) -> dict[str, np.ndarray]:
        names = [value.name for value in self._session.get_outputs()]
        return dict(zip(names, self._binding.copy_outputs_to_cpu(), strict=True))


def compare(decoder: CaptionDecoder, rows: int, k: int, turns: int) -> None:
    """Prints the tables for one number of rows."""
    for title, graphs in variants(decoder, k).items():
        sides = {name: Timed(graph, decoder, rows, k) for name, graph in graphs.items()}
        for side in sides.values():
            side.run()
        first = next(iter(sides.values())).outputs()
        errors = {}
        for name, side in sides.items():
            found = side.outputs()
            errors[name] = max(float(np.abs(found[key] - first[key]).max()) for key in ("next_hidden", "next_cell"))
            if "int8" not in name:
                assert errors[name] < 1e-5, f"{name} computes another state"
                if found["ids"].shape == first["ids"].shape and name != "softmax_top":
                    assert (found["ids"] == first["ids"]).all(), f"{name} chooses other words"
            side.seconds.clear()
        for _ in range(turns):
            for side in sides.values():
                side.run()
        print(f"\n{title}, {rows} rows, k = {k}\n{'':22} quickest   median ms   opened in ms   error of state")
        for name, side in sides.items():
            quickest, median = min(side.seconds) * 1e3, statistics.median(side.seconds) * 1e3
            print(f"{name:22} {quickest:8.3f} {median:11.3f} {side.load * 1e3:14.0f} {errors[name]:16.1e}")


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=ROWS)
    parser.add_argument("--turns", type=int, default=100, help="runs of each variant")
    parser.add_argument("--units", type=int, default=512)
    parser.add_argument("--embedding", type=int, default=300)
    parser.add_argument("--vocabulary", type=int, default=2539)
    given = parser.parse_args(arguments)
    torch.manual_seed(0)
    sizes = DecoderConfig(
        feature_size=8,
        vocabulary_size=given.vocabulary,
        pad_id=0,
        units=given.units,
        embedding=given.embedding,
        logit_hidden=given.embedding,
        tied=True,
    )
    decoder = CaptionDecoder(sizes).eval()
    for rows in given.rows:
        compare(decoder, rows, 1 if rows < 32 else 6, given.turns)


if __name__ == "__main__":
    main()
