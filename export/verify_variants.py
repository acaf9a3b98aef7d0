"""Compares the variants of a bundle with its fp32 graphs. Owns the checks and the tolerances.

Knows nothing of PyTorch, with which the fp32 graphs are compared elsewhere, or of how variants are made.
"""

from collections.abc import Iterator

import numpy as np
import onnxruntime as ort

from engine.bundle.bundle import Bundle
from engine.bundle.manifest import GraphFile
from export import verify

TOLERANCES = {"int8": 0.25, "fp16": 0.02}
"""Largest allowed |variant - fp32| / |fp32| of an output. For an INT8 encoder, captions begin to suffer at a quarter
(0.005 CIDEr on Flickr8k); a broken one is near 1 or above."""


def verify_variant(bundle: Bundle, precision: str, pixels: np.ndarray) -> Iterator[verify.Check]:
    """Compares each graph of a bundle in a precision with the fp32 one, on the CPU.

    pixels: photographs, uint8 (count, height, width, 3), on which the encoder is compared; other inputs are random.
    """
    random = np.random.default_rng(verify.SEED)
    largest = max(verify.BATCH_SIZES)
    pixels = np.resize(pixels, (largest, *pixels.shape[1:]))
    features = _session(bundle, bundle.graph("encoder")).run(["features"], {"pixels": pixels})[0]
    for graph in bundle.manifest.graphs:
        if graph.precision != precision:
            continue
        exact, variant = (_session(bundle, file) for file in (bundle.graph(graph.graph), graph))
        drawn = {"log_probs"} if graph.graph == "sample_step" else set()  # the drawn words may differ
        names = [tensor.name for tensor in graph.outputs if tensor.dtype == "float32" and tensor.name not in drawn]
        worst = 0.0
        for rows in verify.BATCH_SIZES:
            feed = {"pixels": pixels[:rows], "features": features[:rows]}
            inputs = {
                tensor.name: feed.get(tensor.name, _draw(bundle, tensor.name, tensor.dtype, tensor.shape, rows, random))
                for tensor in graph.inputs
            }
            pairs = zip(variant.run(names, inputs), exact.run(names, inputs), strict=True)
            worst = max(worst, *(_error(found, expected) for found, expected in pairs))
        what = "photographs" if graph.graph == "encoder" else "random inputs"
        yield verify.Check(f"{precision} {graph.graph}, {what}", worst, TOLERANCES[precision], verify.BATCH_SIZES)


def _session(bundle: Bundle, graph: GraphFile) -> ort.InferenceSession:
    settings = ort.SessionOptions()
    settings.log_severity_level = 3
    return ort.InferenceSession(bundle.path / graph.file, settings, providers=["CPUExecutionProvider"])


def _draw(
    bundle: Bundle, name: str, dtype: str, shape: tuple[int | str, ...], rows: int, random: np.random.Generator
) -> np.ndarray:
    """Draws an input of a decoder's graph as a search would give it."""
    extents = tuple(rows if isinstance(extent, str) else extent for extent in shape)
    vocabulary = bundle.manifest.vocabulary_size
    if name == "k":
        return np.array([min(verify.CANDIDATES, vocabulary - 1)])
    if dtype == "int64":
        return random.integers(0, vocabulary if name == "token_ids" else rows, extents)
    if name in {each.name for each in bundle.manifest.state}:
        return random.uniform(-1, 1, extents).astype(dtype)
    return random.random(extents, dtype=np.float32).astype(dtype)


def _error(found: np.ndarray, expected: np.ndarray) -> float:
    """Returns the relative error of an output; infinity if it is not finite."""
    with np.errstate(invalid="ignore", over="ignore"):
        error = float(np.linalg.norm(found - expected) / max(float(np.linalg.norm(expected)), 1e-9))
    return error if np.isfinite(error) else np.inf
