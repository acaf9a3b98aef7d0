"""The steps of a decode on a session: fused is portable, no shape is bound twice, what is no number is an error."""

import gc
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine import Beam, Captioner, EngineError, Greedy, Sample
from engine.decoding.step_model import StepModel
from engine.options import Decoding
from engine.runtime import steps as steps_module
from engine.runtime.pool import Pool
from engine.runtime.steps import Key, StepBuffers, Steps

WAYS = (Greedy(), Beam(beam_size=3), Sample(seed=1), Sample(seed=1, top_k=5, num_samples=3))


@pytest.fixture(scope="module")
def features(tiny_captioner: Captioner) -> np.ndarray:
    size = tiny_captioner.bundle.manifest.feature_size
    return np.random.default_rng(0).standard_normal((9, size), dtype=np.float32)


@pytest.fixture
def steps(tiny_captioner: Captioner, features: np.ndarray) -> tuple[Steps, Steps]:
    """The same decode twice."""
    graphs = tiny_captioner.model.graphs
    first, second = graphs.start(features), graphs.start(features)
    assert isinstance(first, Steps)
    assert isinstance(second, Steps)
    return first, second


def fed(captioner: Captioner, rows: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draws token_ids and parent_rows (rows,) and a bias (1, vocabulary)."""
    random, words = np.random.default_rng(seed), captioner.bundle.manifest.vocabulary_size
    bias = np.zeros((1, words), np.float32)
    bias[:, random.integers(0, words, 3)] = -np.inf
    return random.integers(0, words, rows), random.integers(0, 4, rows), bias


def heats_and_uniforms(rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Draws temperatures and uniforms, (rows,) each."""
    random = np.random.default_rng(seed)
    return random.choice([1e-300, 0.3, 0.7, 1.0, 2.5], rows), 1 - random.random(rows, dtype=np.float32)


def test_the_fused_draw_does_what_the_search_step_does_for_a_model_without_it(
    tiny_captioner: Captioner, steps: tuple[Steps, Steps]
) -> None:
    assert "sample_step" in {graph.graph for graph in tiny_captioner.bundle.manifest.graphs}
    fused, portable = steps
    for seed, rows in enumerate((9, 12, 4, 4)):
        given = fed(tiny_captioner, rows, seed)
        drawn = heats_and_uniforms(rows, seed)
        ids, log_probs = fused.draw(*given, *drawn)
        expected_ids, expected_log_probs = StepModel.draw(portable, *given, *drawn)
        np.testing.assert_array_equal(ids, expected_ids)
        np.testing.assert_allclose(log_probs, expected_log_probs, atol=1e-5)


def test_a_row_draws_the_same_whatever_the_temperatures_of_the_others(
    tiny_captioner: Captioner, features: np.ndarray
) -> None:
    graphs, rows = tiny_captioner.model.graphs, len(features)
    given, (temperatures, uniforms) = fed(tiny_captioner, rows, 0), heats_and_uniforms(rows, 0)
    mixed = [each.copy() for each in graphs.start(features).draw(*given, temperatures, uniforms)]
    for temperature in set(temperatures):
        alike = graphs.start(features).draw(*given, np.full(rows, temperature), uniforms)
        for found, expected in zip(mixed, alike, strict=True):
            np.testing.assert_array_equal(found[temperatures == temperature], expected[temperatures == temperature])


@pytest.mark.parametrize("decoding", WAYS)
def test_no_shape_is_bound_twice_in_a_decode(
    tiny_captioner: Captioner, features: np.ndarray, decoding: Decoding, monkeypatch: pytest.MonkeyPatch
) -> None:
    bound: list[tuple[Any, ...]] = []
    bind = StepBuffers.bind

    def counted(self: StepBuffers, key: Key) -> Any:
        bound.append((key, tuple(slot.capacity for slot in self.slots)))
        return bind(self, key)

    monkeypatch.setattr(StepBuffers, "bind", counted)
    monkeypatch.setattr(tiny_captioner.model.graphs, "_pool", Pool(tiny_captioner.model.graphs._pool._make))
    tiny_captioner.caption_features(features, decoding)
    assert bound
    assert len(bound) == len(set(bound))
    tiny_captioner.caption_features(features, decoding)  # in slots that no longer grow
    bound.clear()
    tiny_captioner.caption_features(features, decoding)
    assert not bound  # what there is was taken over
    monkeypatch.setattr(steps_module, "MOST_KEPT", 0)
    tiny_captioner.caption_features(features, decoding)
    tiny_captioner.caption_features(features, decoding)
    searching = [(key, capacities) for key, capacities in bound if key[0] == "search_step"]
    assert len(searching) == 2 * len(set(searching))  # but for what is too large to be kept


def test_decodes_at_once_share_no_memory_and_there_is_no_more_than_they_need(
    tiny_captioner: Captioner, features: np.ndarray
) -> None:
    graphs = tiny_captioner.model.graphs

    def lent(steps: StepModel) -> StepBuffers:
        assert isinstance(steps, Steps)
        return steps._buffers

    several = [graphs.start(features[:size]) for size in (1, 2, 3)]
    lanes = {id(lent(steps)) for steps in several}
    assert len(lanes) == 3
    several.clear()
    for size in (4, 9, 1):
        assert id(lent(graphs.start(features[:size]))) in lanes
    assert id(lent(graphs.start_empty(4))) not in lanes  # a decode without end has its own


def test_the_memory_of_decodes_goes_with_their_captioner(tiny_bundle: Path, features: np.ndarray) -> None:
    captioner = Captioner(tiny_bundle, provider="cpu")
    captioner.caption_features(features, Beam(beam_size=3))
    steps = captioner.model.graphs.start(features)
    assert isinstance(steps, Steps)
    lane = weakref.ref(steps._buffers)
    del steps
    assert lane() is not None
    del captioner
    gc.collect()
    assert lane() is None


@pytest.mark.parametrize("decoding", WAYS)
def test_features_that_are_no_numbers_are_an_error(
    tiny_captioner: Captioner, features: np.ndarray, decoding: Decoding
) -> None:
    broken = features.copy()
    broken[3] = np.nan
    with pytest.raises(EngineError, match="the model returned NaN"):
        tiny_captioner.caption_features(broken, decoding)


@pytest.mark.parametrize("decoding", WAYS)
def test_the_batch_decides_nothing(tiny_captioner: Captioner, features: np.ndarray, decoding: Decoding) -> None:
    together = [caption.text for caption in tiny_captioner.caption_features(features, decoding)]
    alone = [tiny_captioner.caption_features(features[[i]], decoding)[0].text for i in range(len(features))]
    turned = [caption.text for caption in tiny_captioner.caption_features(features[::-1].copy(), decoding)][::-1]
    assert together == alone == turned
