"""A bundle with vectors of random weights: the mean of word vectors for texts, one matrix for images; both in numpy."""

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from onnx import TensorProto

from engine.bundle.bundle import Bundle
from export import record
from export.additions import save_manifest
from export.graph_builder import GraphBuilder

SIZE = 24
FLOAT, INT = TensorProto.FLOAT, TensorProto.INT64


class RandomVectors:
    """The weights for a bundle, drawn from a seed, and what they give."""

    def __init__(self, bundle: Bundle, seed: int = 0) -> None:
        generator = np.random.default_rng(seed)
        self.bundle = bundle
        self.words = generator.normal(size=(len(bundle.vocabulary), SIZE)).astype(np.float32)
        size = int(np.prod(bundle.manifest.feature_shape))
        self.matrix = generator.normal(size=(size, SIZE)).astype(np.float32)

    def of_texts(self, texts: Sequence[str]) -> np.ndarray:
        """The mean of the vectors of a text's words, START and END among them, at unit length."""
        means = [self.words[self.bundle.vocabulary.encode(text)].mean(axis=0) for text in texts]
        return np.stack([mean / np.linalg.norm(mean) for mean in means])

    def of_features(self, features: np.ndarray) -> np.ndarray:
        """The product with a matrix, at unit length."""
        found: np.ndarray = features.reshape(len(features), -1) @ self.matrix
        vectors: np.ndarray = found / np.linalg.norm(found, axis=1, keepdims=True)
        return vectors

    def add_to_copy(self, folder: Path) -> Path:
        """Copies the bundle to a folder, with the two graphs added, and returns the folder."""
        shutil.copytree(self.bundle.path, folder)
        graphs = {"image_vector": self._image_vector(), "text_vector": self._text_vector()}
        for name, graph in graphs.items():
            (folder / f"{name}.onnx").write_bytes(graph.model(name).SerializeToString())
        files = tuple(record.graph_file(name, folder / f"{name}.onnx") for name in graphs)
        manifest = self.bundle.manifest
        save_manifest(folder, replace(manifest, vector_size=SIZE, graphs=manifest.graphs + files))
        return folder

    def _image_vector(self) -> GraphBuilder:
        graph = GraphBuilder()
        graph.input("features", FLOAT, "batch", *self.bundle.manifest.feature_shape)
        flat = graph.node("Flatten", "features", axis=1)
        _give_unit_length(graph, graph.node("MatMul", flat, graph.weight("matrix", self.matrix)))
        return graph

    def _text_vector(self) -> GraphBuilder:
        graph = GraphBuilder()
        graph.input("token_ids", INT, "batch", "length")
        graph.input("lengths", INT, "batch")
        rows = graph.node("Gather", graph.weight("words", self.words), "token_ids")
        last = graph.weight("last", np.int64(1))
        longest = graph.node("Gather", graph.node("Shape", "token_ids"), last)
        zero, one = graph.weight("zero", np.int64(0)), graph.weight("one", np.int64(1))
        places = graph.node("Range", zero, longest, one)
        read = graph.node("Less", places, graph.node("Unsqueeze", "lengths", graph.weight("axes", [1])))
        mask = graph.node("Unsqueeze", graph.node("Cast", read, to=FLOAT), graph.weight("behind", [2]))
        masked = graph.node("Mul", rows, mask)
        _give_unit_length(graph, graph.node("ReduceSum", masked, graph.weight("axes", [1]), keepdims=0))
        return graph


def _give_unit_length(graph: GraphBuilder, name: str) -> None:
    graph.node("LpNormalization", name, out="vectors", axis=1, p=2)
    graph.output("vectors", FLOAT, "batch", SIZE)
