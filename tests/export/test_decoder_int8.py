"""INT8 steps: near fp32, smaller, and indifferent to the rows beside a row."""

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from torch import nn

from export.decoder import Layout, init_graph, search_graphs
from export.decoder_int8 import quantise_step
from tests.export.runs import attending_decoder
from training.models.decoder import CaptionDecoder, DecoderConfig

WORDS, UNITS = 61, 32


@pytest.fixture(scope="module")
def decoder() -> CaptionDecoder:
    torch.manual_seed(1)
    sizes = DecoderConfig(feature_size=7, vocabulary_size=WORDS, pad_id=1, units=UNITS, embedding=24, logit_hidden=24)
    return CaptionDecoder(sizes).eval()


@pytest.fixture(scope="module")
def graphs(decoder: CaptionDecoder) -> dict[str, onnx.ModelProto]:
    return search_graphs(decoder, Layout.of(decoder, (7,)))


def session(graph: onnx.ModelProto) -> ort.InferenceSession:
    return ort.InferenceSession(graph.SerializeToString())


def feed(graph: onnx.ModelProto, rows: int) -> dict[str, np.ndarray]:
    """Draws inputs; the hidden state of one row is ten times as large, as first states can be."""
    random = np.random.default_rng(rows)
    hidden, cell = random.standard_normal((2, rows, UNITS), dtype=np.float32)
    hidden[0] *= 10
    values = {
        "token_ids": random.integers(0, WORDS, rows),
        "parent_rows": np.arange(rows),
        "hidden": hidden,
        "cell": cell,
        "bias": np.zeros((1, WORDS), np.float32),
        "k": np.array([WORDS]),
        "uniforms": 1 - random.random(rows, dtype=np.float32),
        "temperature": np.ones(rows, np.float32),
    }
    return {value.name: values[value.name] for value in graph.graph.input}


def test_int8_is_near_fp32(graphs: dict[str, onnx.ModelProto]) -> None:
    graph = graphs["search_step"]
    inputs = feed(graph, 9)
    outputs = ["log_probs", "next_hidden", "next_cell"]
    exact = session(graph).run(outputs, inputs)
    whole = session(quantise_step(graph)).run(outputs, inputs)
    for found, expected in zip(whole, exact, strict=True):
        assert 0 < np.abs(found - expected).max() < 0.05
        np.testing.assert_allclose(found[1:], expected[1:], atol=0.02)


@pytest.mark.parametrize("name", ["search_step", "sample_step"])
def test_a_row_does_not_depend_on_the_rows_beside_it(graphs: dict[str, onnx.ModelProto], name: str) -> None:
    run = session(quantise_step(graphs[name]))
    inputs = feed(graphs[name], 9)
    together = run.run(None, inputs)
    for row in range(9):
        alone = {key: value[[row]] if len(value) == 9 else value for key, value in inputs.items()}
        if "parent_rows" in alone:
            alone["parent_rows"] = np.zeros(1, np.int64)
        for one, all_rows in zip(run.run(None, alone), together, strict=True):
            np.testing.assert_allclose(one[0], all_rows[row], atol=1e-6)


def test_products_by_weights_are_whole_numbers_and_no_file_holds_the_weights_once_more(
    graphs: dict[str, onnx.ModelProto], tmp_path: Path
) -> None:
    exact = graphs["search_step"]
    before = exact.SerializeToString()
    quantised = quantise_step(exact)
    assert exact.SerializeToString() == before
    assert not quantised.graph.value_info
    onnx.checker.check_model(quantised)
    assert matrices(quantised) == matrices(exact)
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "opened.onnx")
    ort.InferenceSession(quantised.SerializeToString(), options, providers=["CPUExecutionProvider"])
    opened = onnx.load(tmp_path / "opened.onnx")
    whole = {tensor.name for tensor in opened.graph.initializer if tensor.data_type == onnx.TensorProto.INT8}
    products = [node for node in opened.graph.node if node.op_type == "MatMulIntegerToFloat"]
    assert len(products) == 3
    assert {node.input[1] for node in products} <= whole  # rounded when the graph was opened, not at each step
    assert not [node for node in opened.graph.node if node.op_type in ("Gemm", "MatMul")]  # the table is made, too


class Twice(nn.Module):
    """A decoder that uses a layer for two things, at the start and in each step."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 6)

    def start(self, features: torch.Tensor) -> tuple[tuple[torch.Tensor, ...], tuple[torch.Tensor, ...]]:
        return (self.layer(features),), (self.layer(features.tanh()),)

    def step(
        self, token_ids: torch.Tensor, state: tuple[torch.Tensor, ...], context: tuple[torch.Tensor, ...]
    ) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
        following = self.layer(state[0]) + self.layer(context[0]) + token_ids[:, None]
        return following.tanh(), (following,)


def test_weights_that_are_used_twice_are_rounded_once() -> None:
    torch.manual_seed(0)
    decoder = Twice().eval()
    layout = Layout.of(decoder, (6,))
    features = np.random.default_rng(1).standard_normal((4, 6), dtype=np.float32)
    exact = init_graph(decoder, layout)
    quantised = quantise_step(exact)
    assert kinds(quantised)["MatMulIntegerToFloat"] == 2
    assert kinds(quantised)["Transpose"] == 1
    pairs = zip(*(session(graph).run(None, {"features": features}) for graph in (exact, quantised)), strict=True)
    for expected, found in pairs:
        np.testing.assert_allclose(found, expected, atol=0.05)
    session(quantise_step(search_graphs(decoder, layout)["search_step"]))


def test_products_of_the_same_rows_round_them_once_and_rows_are_apart() -> None:
    attending = attending_decoder("test_efficientnet")
    layout = Layout.of(attending, attending.config.feature_shape)
    step = quantise_step(search_graphs(attending, layout)["search_step"])
    # the state: gates, query and gate; what was seen: gates and logits; the next state; the hidden layer
    assert (kinds(step)["MatMulIntegerToFloat"], kinds(step)["Abs"]) == (7, 4)
    exact = init_graph(attending, layout)
    quantised = session(quantise_step(exact))
    grids = np.random.default_rng(2).random((5, *layout.feature_shape), dtype=np.float32)
    whole = quantised.run(None, {"features": grids})
    for found, expected in zip(whole, session(exact).run(None, {"features": grids}), strict=True):
        assert 0 < np.linalg.norm(found - expected) < 0.05 * np.linalg.norm(expected)
    for image in range(5):
        alone = quantised.run(None, {"features": grids[[image]]})
        for one, all_images in zip(alone, whole, strict=True):
            np.testing.assert_allclose(one[0], all_images[image], atol=1e-6)


def kinds(model: onnx.ModelProto) -> Counter[str]:
    return Counter(node.op_type for node in model.graph.node)


def matrices(model: onnx.ModelProto) -> dict[str, bytes]:
    """Returns the bytes of each matrix that a file would hold."""
    return {tensor.name: tensor.raw_data for tensor in model.graph.initializer if len(tensor.dims) == 2}
