"""Changes the vocabulary size of a bundle's decoder, for timing: the same graphs in every precision, other words.

Knows nothing of what the graphs compute: every dimension equal to the vocabulary's is resized.
"""

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
from onnx import ModelProto, numpy_helper

from engine.bundle.bundle import MANIFEST_FILE, VOCABULARY_FILE, Bundle, sha256
from engine.bundle.manifest import GraphFile, Tensor
from engine.bundle.vocabulary import END, PAD, SPECIAL_WORDS, Vocabulary
from export.weights import share_weights

WEIGHTS = "other.weights"


def write_other_vocabulary(bundle: Bundle, size: int, folder: Path) -> None:
    """Writes the bundle to `folder` with `size` words.

    Each new word has the weights of one of the old, drawn with a seed. The end is as likely as padding, which no model
    says: every sentence has the greatest length, so that all vocabularies give the decoder as many steps.
    """
    manifest = bundle.manifest
    old = manifest.vocabulary_size
    if old in (manifest.units, manifest.feature_size) or size < len(SPECIAL_WORDS):
        raise ValueError(
            f"cannot resize the vocabulary: {old} also occurs as another size, or {size} words are too few"
        )
    folder.mkdir(parents=True)
    vocabulary = Vocabulary((*SPECIAL_WORDS, *(f"word{i}" for i in range(size - len(SPECIAL_WORDS)))))
    ids = bundle.vocabulary.ids
    parents = np.random.default_rng(0).integers(0, old, size)  # (size,) whose weights each new word has
    for i, word in enumerate(SPECIAL_WORDS):
        parents[i] = ids[PAD if word == END else word]
    models = {}
    for graph in manifest.graphs:
        if graph.graph == "encoder":
            for name in (graph.file, *graph.data):
                shutil.copyfile(bundle.path / name, folder / name)
        else:
            models[graph.file] = _resized(onnx.load(bundle.path / graph.file), old, parents)
    share_weights(list(models.values()), folder / WEIGHTS)
    for name, model in models.items():
        (folder / name).write_bytes(model.SerializeToString(deterministic=True))
    vocabulary.save(folder / VOCABULARY_FILE)
    graphs = tuple(_described(graph, folder, old, size) for graph in manifest.graphs)
    files = {VOCABULARY_FILE, *(name for graph in graphs for name in graph.data)}
    changed = replace(
        manifest,
        name=f"{manifest.name}, {size} words",
        vocabulary_size=size,
        special_ids={word: vocabulary.ids[word] for word in SPECIAL_WORDS},
        graphs=graphs,
        data_sha256={name: sha256(folder / name) for name in sorted(files)},
    )
    (folder / MANIFEST_FILE).write_text(json.dumps(changed.to_dict()), encoding="utf-8")


def _resized(model: ModelProto, old: int, parents: np.ndarray) -> ModelProto:
    """Gives every extent and constant of `old` the size of `parents`, in place."""
    size = len(parents)
    for tensor in _constants(model):
        array = numpy_helper.to_array(tensor)
        for axis, extent in enumerate(array.shape):
            if extent == old:
                array = np.take(array, parents, axis)
        if array.dtype == np.int64 and array.size <= 8:  # a shape
            array = np.where(array == old, size, array)
        tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(array), tensor.name))
    for node in model.graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.INT and attribute.i == old:
                attribute.i = size
    for value in (*model.graph.input, *model.graph.output):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_value == old:
                dim.dim_value = size
    del model.graph.value_info[:]
    return model


def _constants(model: ModelProto) -> Iterator[onnx.TensorProto]:
    yield from model.graph.initializer
    for node in model.graph.node:
        yield from (a.t for a in node.attribute if a.type == onnx.AttributeProto.TENSOR)


def _described(graph: GraphFile, folder: Path, old: int, size: int) -> GraphFile:
    def tensors(given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return tuple(replace(t, shape=tuple(size if extent == old else extent for extent in t.shape)) for t in given)

    if graph.graph == "encoder":
        return graph
    model = onnx.load(folder / graph.file, load_external_data=False)
    outside = any(tensor.external_data for tensor in model.graph.initializer)
    return replace(
        graph,
        sha256=sha256(folder / graph.file),
        data=(WEIGHTS,) if outside else (),
        inputs=tensors(graph.inputs),
        outputs=tensors(graph.outputs),
    )
