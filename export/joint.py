"""Adds the vectors of a training.joint run to a bundle: two graphs, verified against PyTorch, and what they are worth.

Weights are stored in int8, with a scale for each word or output: 3.5 MB in place of 15. Sums are made in float32.
"""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from onnx import ModelProto, TensorProto
from torch import Tensor, nn

from engine.bundle.bundle import VECTOR_GRAPHS, Bundle
from engine.bundle.manifest import Manifest
from engine.bundle.vocabulary import pad_matrix
from engine.runtime.vectors import Vectors
from export import record, verify
from export.additions import require_passed, save_manifest
from export.errors import ExportError
from export.graph_builder import GraphBuilder
from export.staging import staged
from export.variants import files_of
from training.models.joint import ImageVectors, JointRun, JointSpace, TextVectors, load_joint

FLOAT, INT = TensorProto.FLOAT, TensorProto.INT64
TOLERANCE = 1e-5
"""Largest allowed difference of a number in a vector, whose length is 1."""
LONGEST = 24  # words of the texts to verify with
NOTE = "on the validation list, which also chose the epoch"


def add_vectors(bundle: Path, folder: Path) -> tuple[verify.Check, ...]:
    """Adds the space of the run in a folder to a bundle, in place of one that it has; returns the checks.

    On any error the bundle stays as it was. Raises BundleError, CheckpointError, ExportError, ParityError.
    """
    old, run = Bundle.load(bundle), load_joint(folder)
    _require_fit(old, run, folder)
    space = rounded(run.space)
    with staged(bundle) as staging:
        graphs = tuple(graph for graph in old.manifest.graphs if graph.graph not in VECTOR_GRAPHS)
        replaced = files_of(old.manifest.graphs) - files_of(graphs)
        for path in bundle.iterdir():
            if path.name not in replaced:
                (shutil.copytree if path.is_dir() else shutil.copyfile)(path, staging / path.name)
        made = {"image_vector": image_graph(space.images), "text_vector": text_graph(space.texts)}
        for name, model in made.items():
            (staging / f"{name}.onnx").write_bytes(model.SerializeToString(deterministic=True))
        files = tuple(record.graph_file(name, staging / f"{name}.onnx") for name in made)
        manifest = replace(
            old.manifest,
            vector_size=space.sizes.size,
            graphs=graphs + files,
            provenance=old.manifest.provenance | {"vectors": _provenance(run, folder)},
            versions=old.manifest.versions | {"vectors": record.versions()},
        )
        save_manifest(staging, manifest)
        checks = tuple(_verify(Bundle.load(staging), space))
        require_passed(checks)
        save_manifest(staging, replace(manifest, parity=_parity(manifest, checks)))
    return checks


def image_graph(images: ImageVectors) -> ModelProto:
    """Returns the graph image_vector."""
    graph = GraphBuilder()
    shape = images.sizes.feature_shape
    pooled = graph.input("features", FLOAT, "batch", *shape)
    if len(shape) > 1:
        axes = graph.weight("cells", list(range(1, len(shape))))
        pooled = graph.node("ReduceMean", pooled, axes, keepdims=0)
    centred = graph.node("Sub", pooled, graph.weight("mean", images.mean))
    standard = graph.node("Div", centred, graph.weight("deviation", images.deviation))
    hidden = graph.node("Relu", _linear(graph, standard, "hidden", images.hidden))
    seen = _linear(graph, standard, "project", images.project)
    total = graph.node("Add", seen, _linear(graph, hidden, "project_hidden", images.project_hidden))
    _finish(graph, total, images.sizes.size)
    return graph.model("image_vector")


def text_graph(texts: TextVectors) -> ModelProto:
    """Returns the graph text_vector. The words' projections are averaged, which is the projection of their average."""
    graph = GraphBuilder()
    tokens = graph.input("token_ids", INT, "batch", "length")
    lengths = graph.input("lengths", INT, "batch")
    table, scale = _int8(projected(texts))
    whole = graph.node("Cast", graph.node("Gather", graph.weight("words", table), tokens), to=FLOAT)
    words = graph.node("Mul", whole, graph.node("Gather", graph.weight("scale", scale), tokens))
    behind = graph.node("Unsqueeze", lengths, graph.weight("axis", [1]))  # (batch, 1)
    zero, one = graph.weight("zero", np.int64(0)), graph.weight("one", np.int64(1))
    longest = graph.node("Gather", graph.node("Shape", tokens), one)
    read = graph.node("Less", graph.node("Range", zero, longest, one), behind)  # (batch, length)
    mask = graph.node("Unsqueeze", graph.node("Cast", read, to=FLOAT), graph.weight("last", [2]))
    total = graph.node("ReduceSum", graph.node("Mul", words, mask), graph.weight("axis", [1]), keepdims=0)
    mean = graph.node("Div", total, graph.node("Cast", behind, to=FLOAT))
    _finish(graph, graph.node("Add", mean, graph.weight("bias", texts.project.bias)), texts.sizes.size)
    return graph.model("text_vector")


@torch.no_grad()
def projected(texts: TextVectors) -> Tensor:
    """Returns what each word adds to a text's vector before it gets unit length: (words, size)."""
    return texts.embedding.weight @ texts.project.weight.T


def _int8(table: Tensor) -> tuple[Tensor, Tensor]:
    """Returns rows of numbers as int8, and the scale of each row: (rows, 1)."""
    table = table.detach()
    scale = table.abs().amax(dim=1, keepdim=True).clamp(min=1e-12) / 127
    return (table / scale).round().to(torch.int8), scale


def _exact(table: Tensor) -> Tensor:
    """Returns the numbers that rows have in int8."""
    whole, scale = _int8(table)
    return whole * scale


def _linear(graph: GraphBuilder, name: str, title: str, layer: nn.Linear) -> str:
    weight, scale = _int8(layer.weight)
    whole = graph.node("Cast", graph.weight(f"{title}_weight", weight), to=FLOAT)  # once, when the graph is opened
    exact = graph.node("Mul", whole, graph.weight(f"{title}_scale", scale))
    bias = [] if layer.bias is None else [graph.weight(f"{title}_bias", layer.bias)]
    return graph.node("Gemm", name, exact, *bias, transB=1)


def _finish(graph: GraphBuilder, name: str, size: int) -> None:
    """Gives vectors unit length, as functional.normalize does."""
    squares = graph.node("ReduceL2", name, graph.weight("each", [1]), keepdims=1)
    length = graph.node("Max", squares, graph.weight("least", np.float32(1e-12)))
    graph.node("Div", name, length, out="vectors")
    graph.output("vectors", FLOAT, "batch", size)


@torch.no_grad()
def rounded(space: JointSpace) -> JointSpace:
    """Returns the space that the graphs hold: one embedding for each word, and all weights rounded to int8."""
    made = JointSpace(replace(space.sizes, embedding=space.sizes.size)).eval()
    made.images.load_state_dict(space.images.state_dict())
    for layer in (made.images.project, made.images.hidden, made.images.project_hidden):
        layer.weight.copy_(_exact(layer.weight))
    made.texts.embedding.weight.copy_(_exact(projected(space.texts)))
    made.texts.project.weight.copy_(torch.eye(space.sizes.size))
    made.texts.project.bias.copy_(space.texts.project.bias)
    return made


def _require_fit(bundle: Bundle, run: JointRun, folder: Path) -> None:
    """Raises ExportError for a run on another encoder's features or with other words."""
    manifest = bundle.manifest
    encoder = bundle.manifest.provenance.get("encoder", {})
    own = encoder.get("fingerprint", bundle.graph("encoder").sha256)
    advice = f"train it on this bundle, with python -m training.joint --bundle {bundle.path}"
    if (run.config["encoder"].get("fingerprint"), run.space.sizes.feature_shape) != (own, manifest.feature_shape):
        raise ExportError(f"the vectors in {folder} are for the features of another encoder: {advice}")
    if run.words != bundle.vocabulary.words:
        raise ExportError(f"the vectors in {folder} are for other words than the bundle's: {advice}")


def _provenance(run: JointRun, folder: Path) -> dict[str, Any]:
    """Describes how the space was made, and how well it finds photographs by their sentences and the reverse."""
    config = run.config
    return {
        "run": folder.resolve().name,
        "sizes": config["joint"],
        "training": config["training"],
        "data": config["data"],
        "epoch": run.epoch["epoch"],
        "recall": {"measured": NOTE, **{source or "data": found for source, found in run.epoch["found"].items()}},
        "licence": "as the terms of the training data say",
    }


def _parity(manifest: Manifest, checks: tuple[verify.Check, ...]) -> dict[str, Any]:
    kept = {name: value for name, value in manifest.parity.items() if name.split(",")[0] not in VECTOR_GRAPHS}
    return kept | record.parity(checks)


@torch.no_grad()
def _verify(bundle: Bundle, space: JointSpace) -> list[verify.Check]:
    """Compares the vectors that the engine gives with PyTorch's, for random features and random texts."""
    random, vectors, words = np.random.default_rng(verify.SEED), Vectors(bundle), bundle.vocabulary
    known = [word for word in words.words if words.split(word) == [word]]

    def images(count: int) -> float:
        features = random.random((count, *bundle.manifest.feature_shape), dtype=np.float32)
        return _distance(vectors.of_features(features), space.images(torch.from_numpy(features)))

    def texts(count: int) -> float:
        said = [" ".join(random.choice(known, random.integers(1, LONGEST))) for _ in range(count)]
        sentences = [words.encode(text) for text in said]
        tokens = torch.from_numpy(pad_matrix(sentences, words.pad_id))
        lengths = torch.tensor([len(sentence) for sentence in sentences])
        return _distance(vectors.of_texts(said), space.texts(tokens, lengths))

    def check(name: str, error: Callable[[int], float]) -> verify.Check:
        return verify.Check(name, max(map(error, verify.BATCH_SIZES)), TOLERANCE, verify.BATCH_SIZES)

    return [check("image_vector, random features", images), check("text_vector, random texts", texts)]


def _distance(found: np.ndarray, expected: Tensor) -> float:
    return float(np.abs(found - expected.numpy()).max())
