"""The fused steps: each computes what PyTorch computes, tied or not, with the gates' table and without."""

from collections import Counter
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from export.decoder import Layout, search_graphs
from export.fused_steps import TABLE_BYTES
from training.models.attention import AttentionConfig, AttentionDecoder
from training.models.decoder import CaptionDecoder, DecoderConfig

CELLS = 2, 3
WORDS, UNITS = 150, 12  # words in three blocks of sample_step, the last one not full
Sessions = dict[str, ort.InferenceSession]


def make_decoder(kind: str, tied: bool) -> CaptionDecoder:
    torch.manual_seed(3)
    sizes: dict[str, Any] = {
        "feature_size": 5,
        "vocabulary_size": WORDS,
        "pad_id": 1,
        "bottleneck": 6,
        "units": UNITS,
        "embedding": 8,
        "logit_hidden": 8,
        "tied": tied,
    }
    if kind == "lstm":
        decoder = CaptionDecoder(DecoderConfig(**sizes))
    else:
        height, width = CELLS
        attending = AttentionConfig(**sizes, height=height, width=width, attention_size=4, value_size=7)
        decoder = AttentionDecoder(attending)
    for name, weight in decoder.named_parameters():  # sharp enough that the order of words is no accident
        weight.data = torch.randn(weight.shape) if "attention" in name else weight.data * 3
    return decoder.eval()


@pytest.fixture(
    scope="module",
    params=[
        ("lstm", True, TABLE_BYTES),
        ("lstm", False, TABLE_BYTES),
        ("lstm", True, 0),
        ("attention", True, TABLE_BYTES),
        ("attention", False, 0),
    ],
)
def model(request: pytest.FixtureRequest) -> tuple[CaptionDecoder, Sessions]:
    kind, tied, table_bytes = request.param
    decoder = make_decoder(kind, tied)
    graphs = search_graphs(decoder, Layout.of(decoder, decoder.config.feature_shape), table_bytes)
    for graph in graphs.values():
        onnx.checker.check_model(graph, full_check=True)
    return decoder, {name: ort.InferenceSession(graph.SerializeToString()) for name, graph in graphs.items()}


class Step:
    """Inputs drawn from a seed, and what PyTorch makes of them."""

    def __init__(self, decoder: CaptionDecoder, rows: int, seed: int) -> None:
        random = np.random.default_rng(seed)
        state_rows = int(random.integers(1, 9))
        parents = random.integers(0, state_rows, rows)
        hidden, cell = random.standard_normal((2, state_rows, UNITS), dtype=np.float32)
        bias = np.zeros((random.choice([1, rows]), WORDS), np.float32)
        bias[:, random.integers(0, WORDS, 5)] = -np.inf
        token_ids = random.integers(0, WORDS, rows)
        self.feed = {"token_ids": token_ids, "parent_rows": parents, "hidden": hidden, "cell": cell, "bias": bias}
        self.uniforms = 1 - random.random(rows, dtype=np.float32)
        context: tuple[torch.Tensor, ...] = ()
        with torch.no_grad():
            if isinstance(decoder, AttentionDecoder):
                images = int(random.integers(1, 5))
                grids = torch.from_numpy(random.standard_normal((images, *CELLS, 5), dtype=np.float32))
                _, (keys, values) = decoder.start(grids)
                owners = random.integers(0, images, rows)
                self.feed |= {"image_rows": owners, "keys": keys.numpy(), "values": values.numpy()}
                context = keys[owners], values[owners]
            state = torch.from_numpy(hidden[parents]), torch.from_numpy(cell[parents])
            logits, following = decoder.step(torch.from_numpy(token_ids), state, context)
        self.state = tuple(each.numpy() for each in following)
        self.log_probs = logits.log_softmax(dim=1).numpy() + bias
        self.places = np.arange(rows)

    def run(self, session: ort.InferenceSession, **more: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Runs a graph, requires the right next state, and returns ids and what stands beside them."""
        ids, values, *state = session.run(None, {**self.feed, **more})
        for found, expected in zip(state, self.state, strict=True):
            np.testing.assert_allclose(found, expected, atol=1e-5)
        return ids, values


steps = given(rows=st.integers(1, 9), seed=st.integers(0, 1 << 32))


@steps
@settings(deadline=None, max_examples=25)
def test_search_step_gives_the_best_of_pytorch(model: tuple[CaptionDecoder, Sessions], rows: int, seed: int) -> None:
    decoder, sessions = model
    step = Step(decoder, rows, seed)
    ids, log_probs = step.run(sessions["search_step"], k=np.array([4]))
    np.testing.assert_allclose(log_probs, -np.sort(-step.log_probs, axis=1)[:, :4], atol=1e-5)
    np.testing.assert_allclose(log_probs, np.take_along_axis(step.log_probs, ids, axis=1), atol=1e-5)


@steps
@settings(deadline=None, max_examples=40)
def test_sample_step_is_the_inverse_of_the_cumulative_distribution(
    model: tuple[CaptionDecoder, Sessions], rows: int, seed: int
) -> None:
    decoder, sessions = model
    step = Step(decoder, rows, seed)
    temperature = np.random.default_rng(seed).choice([0.3, 1.0, 2.5], rows).astype(np.float32)  # (rows,)
    ids, log_probs = step.run(sessions["sample_step"], uniforms=step.uniforms, temperature=temperature)
    p = np.exp(step.log_probs.astype(np.float64) / temperature[:, None])
    cumulative = p.cumsum(axis=1) / p.sum(axis=1, keepdims=True)
    before = np.where(ids > 0, cumulative[step.places, ids - 1], 0)
    assert (before <= step.uniforms + 1e-5).all()
    assert (step.uniforms <= cumulative[step.places, ids] + 1e-5).all()
    np.testing.assert_allclose(log_probs, step.log_probs[step.places, ids], atol=1e-5)


@pytest.mark.parametrize("temperature", [1e-30, 1.0, 1e30])
def test_sample_step_stays_within_what_is_allowed(model: tuple[CaptionDecoder, Sessions], temperature: float) -> None:
    decoder, sessions = model
    edges = np.array([1.0, 2.0**-24, 1 - 2.0**-24], np.float32)
    heat = np.full(3, temperature, np.float32)
    for seed in range(20):
        step = Step(decoder, 3, seed)
        ids, log_probs = step.run(sessions["sample_step"], uniforms=edges, temperature=heat)
        assert (log_probs > -np.inf).all()
        if temperature < 1:
            np.testing.assert_array_equal(ids, step.log_probs.argmax(axis=1))


@pytest.mark.parametrize("name", ["search_step", "sample_step"])
@pytest.mark.parametrize(("spoilt", "value"), [("bias", -np.inf), ("hidden", np.nan)])
def test_where_nothing_is_allowed_or_known_no_word_is_likely_but_nothing_breaks(
    model: tuple[CaptionDecoder, Sessions], name: str, spoilt: str, value: float
) -> None:
    decoder, sessions = model
    step = Step(decoder, 3, 1)
    step.feed[spoilt] = np.full_like(step.feed[spoilt], value)
    more = {
        "search_step": {"k": np.array([2])},
        "sample_step": {"uniforms": step.uniforms, "temperature": np.ones_like(step.uniforms)},
    }
    ids, values = sessions[name].run(None, {**step.feed, **more.get(name, {})})[:2]
    np.testing.assert_array_equal(values, np.full_like(values, value))
    assert np.isnan(value) or ((ids >= 0) & (ids < WORDS)).all()


def test_the_table_is_multiplied_out_when_the_graph_is_opened(tmp_path_factory: pytest.TempPathFactory) -> None:
    counts = []
    for table_bytes in (TABLE_BYTES, 0):
        decoder = make_decoder("lstm", tied=True)
        graph = search_graphs(decoder, Layout.of(decoder, (5,)), table_bytes)["search_step"]
        options = ort.SessionOptions()
        options.optimized_model_filepath = str(tmp_path_factory.mktemp("optimized") / "graph.onnx")
        ort.InferenceSession(graph.SerializeToString(), options)
        nodes = Counter(node.op_type for node in onnx.load(options.optimized_model_filepath).graph.node)
        counts.append(nodes["Gemm"] + nodes["FusedGemm"])
    assert counts == [3, 4]
