"""The exported files: what they compute, and what is and is not in them."""

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.bundle.bundle import GRAPHS, Bundle
from export.decode import OnnxDecoder, TorchDecoder
from export.graphs import OPSET
from export.weights import ALIGNMENT, share_weights
from training.models.decoder import CaptionDecoder

FUSED = ("search_step", "sample_step")
DECODER_GRAPHS = ("decoder_init", "decoder_step", *FUSED)
CPU = ["CPUExecutionProvider"]


@pytest.fixture(scope="module")
def sessions(exported: Bundle) -> dict[str, ort.InferenceSession]:
    return {name: ort.InferenceSession(exported.path / f"{name}.onnx", providers=CPU) for name in GRAPHS}


def graph(exported: Bundle, name: str) -> onnx.GraphProto:
    return onnx.load(exported.path / f"{name}.onnx", load_external_data=False).graph


@given(rows=st.integers(1, 9), state_rows=st.integers(1, 9), k=st.integers(1, 300), seed=st.integers(0, 1 << 32))
@settings(deadline=None, max_examples=30)
def test_fused_step_equals_portable_step_equals_pytorch(
    exported: Bundle,
    sessions: dict[str, ort.InferenceSession],
    decoder: CaptionDecoder,
    rows: int,
    state_rows: int,
    k: int,
    seed: int,
) -> None:
    random = np.random.default_rng(seed)
    words = decoder.config.vocabulary_size
    token_ids, parents = random.integers(0, words, rows), random.integers(0, state_rows, rows)
    hidden, cell = random.standard_normal((2, state_rows, 24), dtype=np.float32)
    bias = random.standard_normal((random.choice([1, rows]), words), dtype=np.float32)
    inputs = {"token_ids": token_ids, "parent_rows": parents, "hidden": hidden, "cell": cell, "bias": bias}
    ids, log_probs, next_hidden, next_cell = sessions["search_step"].run(None, {**inputs, "k": np.array([k])})

    portable = OnnxDecoder(exported.manifest, sessions["decoder_init"], sessions["decoder_step"])
    for step in (portable.step, TorchDecoder(decoder).step):
        expected, (expected_hidden, expected_cell) = step(token_ids, (hidden[parents], cell[parents]), ())
        biased = expected + bias
        np.testing.assert_allclose(log_probs, -np.sort(-biased, axis=1)[:, :k], atol=1e-4)
        np.testing.assert_allclose(log_probs, np.take_along_axis(biased, ids, axis=1), atol=1e-4)
        np.testing.assert_allclose(next_hidden, expected_hidden, atol=1e-5)
        np.testing.assert_allclose(next_cell, expected_cell, atol=1e-5)


def test_the_step_is_one_product_per_matrix_and_moves_no_weights(exported: Bundle) -> None:
    counts = Counter(node.op_type for node in graph(exported, "decoder_step").node)
    assert counts["Gemm"] == 4
    assert counts["Gather"] == 1
    assert not counts.keys() & {"Transpose", "Slice", "Reshape", "Concat", "LSTM", "Cast", "MatMul"}
    assert sum(counts.values()) <= 18


def test_pooling_in_the_encoder_is_one_node(exported: Bundle) -> None:
    counts = Counter(node.op_type for node in graph(exported, "encoder").node)
    assert not counts.keys() & {"Gather", "Range", "Shape"}
    assert counts["Transpose"] == 1


def test_dimensions_have_the_agreed_names(exported: Bundle) -> None:
    shapes = {
        file.graph: {tensor.name: (tensor.dtype, tensor.shape) for tensor in (*file.inputs, *file.outputs)}
        for file in exported.manifest.graphs
    }
    state = ("float32", ("rows", 24))
    fused = {
        "token_ids": ("int64", ("rows",)),
        "parent_rows": ("int64", ("rows",)),
        "hidden": ("float32", ("state_rows", 24)),
        "cell": ("float32", ("state_rows", 24)),
        "bias": ("float32", ("bias_rows", 304)),
        "next_hidden": state,
        "next_cell": state,
    }
    assert shapes == {
        "encoder": {"pixels": ("uint8", ("batch", 160, 160, 3)), "features": ("float32", ("batch", 96))},
        "decoder_init": {
            "features": ("float32", ("batch", 96)),
            "hidden": ("float32", ("batch", 24)),
            "cell": ("float32", ("batch", 24)),
        },
        "decoder_step": {
            "token_ids": ("int64", ("rows",)),
            "hidden": state,
            "cell": state,
            "log_probs": ("float32", ("rows", 304)),
            "next_hidden": state,
            "next_cell": state,
        },
        "search_step": {
            **fused,
            "k": ("int64", (1,)),
            "ids": ("int64", ("rows", "candidates")),
            "log_probs": ("float32", ("rows", "candidates")),
        },
        "sample_step": {
            **fused,
            "uniforms": ("float32", ("rows",)),
            "temperature": ("float32", ("rows",)),
            "ids": ("int64", ("rows",)),
            "log_probs": ("float32", ("rows",)),
        },
    }


def test_graphs_are_valid_and_carry_no_shapes_of_inner_values(exported: Bundle) -> None:
    for name in GRAPHS:
        path = exported.path / f"{name}.onnx"
        onnx.checker.check_model(str(path), full_check=True)
        model = onnx.load(path, load_external_data=False)
        assert [(opset.domain, opset.version) for opset in model.opset_import] == [("", OPSET)]
        assert model.graph.name == name
        assert not model.graph.value_info


def test_no_file_tells_of_the_machine_that_made_it(exported: Bundle, run: Path) -> None:
    for path in exported.path.iterdir():
        content = path.read_bytes()
        for secret in (b"site-packages", b".py", bytes(Path.home()), bytes(Path(__file__).parents[2]), bytes(run)):
            assert secret not in content, (path.name, secret)
    for name in GRAPHS:
        model = onnx.load(exported.path / f"{name}.onnx", load_external_data=False)
        messages = [model, model.graph, *model.graph.node, *model.graph.input, *model.graph.initializer]
        assert not any(message.doc_string or list(message.metadata_props) for message in messages)


def external(exported: Bundle, name: str) -> dict[str, tuple[int, int]]:
    """Offset and length in decoder.weights of each external initialiser of a graph."""
    entries = {
        tensor.name: {entry.key: entry.value for entry in tensor.external_data}
        for tensor in graph(exported, name).initializer
        if tensor.data_location == onnx.TensorProto.EXTERNAL
    }
    assert all(entry["location"] == "decoder.weights" for entry in entries.values())
    return {tensor: (int(entry["offset"]), int(entry["length"])) for tensor, entry in entries.items()}


def test_weights_are_stored_once(exported: Bundle, decoder: CaptionDecoder) -> None:
    places = {place for name in DECODER_GRAPHS for place in external(exported, name).values()}
    for name in FUSED:
        shared = set(external(exported, "decoder_step").values()) & set(external(exported, name).values())
        assert len(shared) >= 5, "every matrix of the cell and of the logits"
    assert all(offset % ALIGNMENT == 0 for offset, _ in places)
    stored = (exported.path / "decoder.weights").read_bytes()
    assert len({stored[offset : offset + length] for offset, length in places}) == len(places)
    assert sum(length for _, length in places) <= 4 * sum(p.numel() for p in decoder.parameters())
    assert len(stored) <= sum(length for _, length in places) + len(places) * ALIGNMENT
    small = sum((exported.path / f"{name}.onnx").stat().st_size for name in DECODER_GRAPHS)
    assert small < 30_000


def test_equal_weights_of_one_graph_are_stored_once(exported: Bundle, tmp_path: Path) -> None:
    model = onnx.load(exported.path / "decoder_step.onnx")
    (weights,) = (t for t in model.graph.initializer if t.name.endswith("output.weight"))
    again = model.graph.initializer.add()
    again.CopyFrom(weights)
    again.name = "the same as a tied weight"
    content = bytes(weights.raw_data)
    share_weights([model], tmp_path / "weights")
    assert (tmp_path / "weights").read_bytes().count(content) == 1
