"""The steps of a decode on a session: fused is portable, no shape is bound twice, what is no number is an error."""

import numpy as np
import pytest

from engine import Captioner
from engine.decoding.step_model import StepModel
from engine.runtime.steps import Steps


@pytest.fixture(scope="module")
def features(tiny_captioner: Captioner) -> np.ndarray:
    size = tiny_captioner.bundle.manifest.feature_shape[0]
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
