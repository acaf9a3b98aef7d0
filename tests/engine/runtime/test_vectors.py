"""Vectors of images and texts: what the graphs compute, whatever the batch, and refusals."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.bundle.bundle import VECTOR_GRAPHS, Bundle
from engine.errors import BundleError, OptionsError
from engine.runtime import vectors as module
from engine.runtime.vectors import MOST_WORDS, Vectors
from tests.engine.bundle.broken import edit, fault, graph
from tests.vectors import SIZE, RandomVectors

TEXTS = [
    "a red circle",
    "",
    "🦄 ???",
    "a circle " * 20,
    "a",
    "an unheard-of xylophone",
    "two small blue squares on grey",
]
CLOSE = 1e-6


@pytest.fixture(scope="module")
def weights(tiny_bundle: Path) -> RandomVectors:
    return RandomVectors(Bundle.load(tiny_bundle))


@pytest.fixture(scope="module")
def searchable(weights: RandomVectors, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return Bundle.load(weights.add_to_copy(tmp_path_factory.mktemp("vectors") / "bundle"))


@pytest.fixture(scope="module")
def features(searchable: Bundle) -> np.ndarray:
    shape = searchable.manifest.feature_shape
    return np.random.default_rng(1).random((9, *shape), dtype=np.float32)


def test_vectors_are_what_the_weights_give_at_unit_length(
    searchable: Bundle, weights: RandomVectors, features: np.ndarray
) -> None:
    vectors = Vectors(searchable, threads=1)
    assert vectors.size == SIZE
    found = vectors.of_texts(TEXTS), vectors.of_features(features)
    for each, expected in zip(found, (weights.of_texts(TEXTS), weights.of_features(features)), strict=True):
        assert each.dtype == np.float32
        np.testing.assert_allclose(each, expected, atol=CLOSE)
        np.testing.assert_allclose(np.linalg.norm(each, axis=1), 1, atol=CLOSE)


def test_a_batch_is_its_texts_and_images_one_by_one(
    searchable: Bundle, features: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    vectors = Vectors(searchable, threads=1)
    texts, images = vectors.of_texts(TEXTS), vectors.of_features(features)
    np.testing.assert_allclose(texts, np.concatenate([vectors.of_texts([text]) for text in TEXTS]), atol=CLOSE)
    np.testing.assert_allclose(images, np.concatenate([vectors.of_features(row[None]) for row in features]), atol=CLOSE)
    monkeypatch.setattr(module, "TEXTS", 2)
    monkeypatch.setattr(module, "IMAGES", 4)
    np.testing.assert_allclose(texts, vectors.of_texts(TEXTS), atol=CLOSE)
    np.testing.assert_allclose(images, vectors.of_features(features), atol=CLOSE)


def test_nothing_has_no_vectors(searchable: Bundle, features: np.ndarray) -> None:
    vectors = Vectors(searchable, threads=1)
    assert vectors.of_texts([]).shape == (0, SIZE)
    assert vectors.of_features(features[:0]).shape == (0, SIZE)


def test_stored_features_in_float16_have_the_vectors_of_the_same_numbers(
    searchable: Bundle, features: np.ndarray
) -> None:
    vectors, stored = Vectors(searchable, threads=1), features.astype(np.float16)
    np.testing.assert_array_equal(vectors.of_features(stored), vectors.of_features(stored.astype(np.float32)))


def test_a_text_is_read_up_to_its_sixtieth_word(searchable: Bundle) -> None:
    vectors, longest = Vectors(searchable, threads=1), " ".join(["circle"] * MOST_WORDS)
    endless, other = vectors.of_texts([longest + " red" * 10_000, longest + " blue square"])
    np.testing.assert_array_equal(endless, other)
    assert np.abs(endless - vectors.of_texts([longest])[0]).max() > 1e-3, "what is whole has an end"


def test_threads_that_share_vectors_get_what_one_gets(searchable: Bundle) -> None:
    vectors, alone = Vectors(searchable, threads=1), Vectors(searchable, threads=1).of_texts(TEXTS)
    with ThreadPoolExecutor(8) as pool:
        for found in pool.map(lambda _: vectors.of_texts(TEXTS), range(40)):
            np.testing.assert_array_equal(found, alone)


def test_what_is_no_text_is_refused_and_one_text_is_a_batch_of_one(searchable: Bundle) -> None:
    vectors = Vectors(searchable, threads=1)
    np.testing.assert_array_equal(vectors.of_texts("a red circle"), vectors.of_texts(["a red circle"]))
    wrong: Any = ["a red circle", 7]
    with pytest.raises(OptionsError, match="one of them is 7"):
        vectors.of_texts(wrong)


def test_features_of_another_shape_are_refused(searchable: Bundle, features: np.ndarray) -> None:
    for wrong in (features[0], features[:, :-1], np.array(1.0)):
        with pytest.raises(OptionsError, match=r"this bundle takes \(images, "):
            Vectors(searchable).of_features(wrong)


def test_a_bundle_without_vectors_says_how_to_get_them(tiny_bundle: Path) -> None:
    with pytest.raises(BundleError, match=r"has no vectors.*export\.to_onnx --joint"):
        Vectors(Bundle.load(tiny_bundle))


# --- what the manifest says of them


def test_a_manifest_from_before_vectors_has_none(tiny_bundle: Path, tmp_path: Path, weights: RandomVectors) -> None:
    folder = weights.add_to_copy(tmp_path / "bundle")

    def without(data: dict[str, object]) -> None:
        data.pop("vector_size")

    edit(folder, without)
    assert "image_vector.onnx is an unknown kind of graph" in fault(folder)
    edit(folder, lambda data: data.update(graphs=[each for each in data["graphs"] if "vector" not in each["graph"]]))
    assert Bundle.load(folder).manifest.vector_size == 0
    assert Bundle.load(folder).manifest == Bundle.load(tiny_bundle).manifest


@pytest.mark.parametrize("name", VECTOR_GRAPHS)
def test_a_graph_of_vectors_that_is_missing_or_has_another_size_is_named(
    tmp_path: Path, weights: RandomVectors, name: str
) -> None:
    folder = weights.add_to_copy(tmp_path / "bundle")
    edit(folder, lambda data: data.update(vector_size=SIZE + 1))
    assert f"{name}.onnx: vectors is float32 ['batch', {SIZE}] and must be" in fault(folder)
    edit(folder, lambda data: data.update(vector_size=-1))
    assert "vector_size is -1 and must be from 0" in fault(folder)
    edit(folder, lambda data: data.update(vector_size=SIZE))
    edit(folder, lambda data: data["graphs"].remove(graph(data, name)))
    assert f"the manifest has no {name} graph in fp32" in fault(folder)
