"""Checks of a bundle. Each returns its problems as a list of sentences; raises nothing and runs nothing."""

import re
from collections import Counter
from itertools import zip_longest
from math import inf, isfinite
from pathlib import Path
from typing import Any

from engine.bundle.manifest import (
    DTYPES,
    RESAMPLE_FILTERS,
    RESIZE_RULES,
    ContextTensor,
    Defaults,
    GraphFile,
    Manifest,
    StateTensor,
)
from engine.bundle.vocabulary import Vocabulary
from engine.confidence import check_confidence

VOCABULARY_FILE = "vocabulary.json"

GRAPHS = "encoder", "decoder_init", "decoder_step", "search_step", "sample_step"
VECTOR_GRAPHS = "image_vector", "text_vector"
"""Graphs of bundles whose images can be searched: both are there or neither is."""
NAME = re.compile(r"[A-Za-z]\w*", re.ASCII)
"""What the name of a state or context tensor looks like."""
RESERVED = (
    *("pixels", "features", "token_ids", "parent_rows", "image_rows", "bias", "k", "uniforms", "temperature"),
    *("ids", "log_probs", "attention"),
)
FROM_1 = "sizes from 1"

Shapes = dict[str, tuple[str, tuple[int | str, ...]]]
"""Tensors by name: dtype and shape; a str names a dynamic dimension."""


def sha256(path: Path) -> str:
    """Returns the SHA-256 of a file in hexadecimal."""
    import hashlib  # slow to import, and `import engine` does not need it

    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest(content: str | bytes) -> str:
    """Returns the SHA-256 of a text or of bytes in hexadecimal."""
    import hashlib

    return hashlib.sha256(content.encode() if isinstance(content, str) else content).hexdigest()


def listed_files(manifest: dict[str, Any]) -> list[tuple[str, str]]:
    """Returns names and SHA-256 of the files in a manifest, as far as it can be read: it may be invalid."""
    graphs, data = manifest.get("graphs"), manifest.get("data_sha256")
    pairs = [(graph.get("file"), graph.get("sha256")) for graph in _items(graphs, list) if isinstance(graph, dict)]
    pairs += _items(data, dict).items()
    return [(name, digest) for name, digest in pairs if isinstance(name, str) and isinstance(digest, str)]


def _items(value: Any, kind: type[Any]) -> Any:
    return value if isinstance(value, kind) else kind()


def check_files(folder: Path, files: list[tuple[str, str]]) -> list[str]:
    """Checks that files, given by name and SHA-256, exist and are intact."""
    problems = []
    for name, expected in files:
        path = folder / name
        if Path(name).name != name or name in ("", ".."):
            problems.append(f"{name!r} is not a plain file name")
            continue
        try:
            if not path.is_file():
                problems.append(f"{name} is missing")
            elif sha256(path) != expected:
                problems.append(f"{name} is corrupt (its SHA-256 differs from the manifest's)")
        except OSError as error:
            problems.append(f"{name} cannot be read ({error.strerror})")
    if VOCABULARY_FILE not in dict(files):
        problems.append(f"the manifest lists no SHA-256 of {VOCABULARY_FILE}")
    return problems


def check_vocabulary(vocabulary: Vocabulary, manifest: Manifest) -> list[str]:
    """Checks that vocabulary and manifest agree."""
    there, stated = len(vocabulary), manifest.vocabulary_size
    problems = [] if there == stated else [f"{VOCABULARY_FILE} has {there} words, the manifest says {stated}"]
    endings = manifest.defaults.bad_endings
    if not all(vocabulary.split(word) == [word] for word in endings):
        problems.append(f"defaults.bad_endings is {endings!r} and must be words as this vocabulary writes them")
    return problems


def tensors_of(manifest: Manifest) -> dict[str, tuple[Shapes, Shapes]]:
    """Returns the inputs and the outputs that each graph must have."""
    image, words = manifest.image, manifest.vocabulary_size
    features: Shapes = {"features": ("float32", ("batch", *manifest.feature_shape))}
    first: Shapes = {each.name: (each.dtype, ("batch", *each.shape)) for each in manifest.state}
    state: Shapes = {each.name: (each.dtype, ("rows", *each.shape)) for each in manifest.state}
    following: Shapes = {each.next: (each.dtype, ("rows", *each.shape)) for each in manifest.state}
    context: Shapes = {each.name: (each.dtype, ("batch", *each.shape)) for each in manifest.context}
    by_row: Shapes = {each.name: (each.dtype, ("rows", *each.shape)) for each in manifest.context}
    by_image: Shapes = {each.name: (each.dtype, ("images", *each.shape)) for each in manifest.context}
    rows: tuple[int | str, ...] = ("rows",)
    fed: Shapes = {
        "token_ids": ("int64", rows),
        "parent_rows": ("int64", rows),
        **{each.name: (each.dtype, ("state_rows", *each.shape)) for each in manifest.state},
        **({"image_rows": ("int64", rows)} if context else {}),
        **by_image,
        "bias": ("float32", ("bias_rows", words)),
    }
    attention: Shapes = {"attention": ("float32", ("rows", *manifest.attention))} if manifest.attention else {}
    ids_of_rows: Shapes = {"ids": ("int64", rows), "log_probs": ("float32", rows)}
    candidates: tuple[int | str, ...] = ("rows", "candidates")
    vectors: Shapes = {"vectors": ("float32", ("batch", manifest.vector_size))}
    text: Shapes = {"token_ids": ("int64", ("batch", "length")), "lengths": ("int64", ("batch",))}
    return {
        "encoder": ({"pixels": ("uint8", ("batch", image.height, image.width, 3))}, features),
        "decoder_init": (features, first | context),
        "decoder_step": (
            {"token_ids": ("int64", rows), **state, **by_row},
            {"log_probs": ("float32", ("rows", words)), **following, **attention},
        ),
        "search_step": (
            fed | {"k": ("int64", (1,))},
            {"ids": ("int64", candidates), "log_probs": ("float32", candidates), **following},
        ),
        "sample_step": (
            fed | {"uniforms": ("float32", rows), "temperature": ("float32", rows)},
            ids_of_rows | following,
        ),
        **({"image_vector": (features, vectors), "text_vector": (text, vectors)} if manifest.vector_size else {}),
    }


def check_values(manifest: Manifest) -> list[str]:
    """Checks the manifest's values, whose types are right."""
    image = manifest.image
    checks: list[tuple[bool, str, object, str]] = [
        (image.resize in RESIZE_RULES, "image.resize", image.resize, f"one of {', '.join(RESIZE_RULES)}"),
        (image.resample in RESAMPLE_FILTERS, "image.resample", image.resample, f"one of {', '.join(RESAMPLE_FILTERS)}"),
        (image.height >= 1, "image.height", image.height, "from 1"),
        (image.width >= 1, "image.width", image.width, "from 1"),
        (all(isfinite(value) for value in image.mean), "image.mean", image.mean, "finite"),
        (all(0 < value < inf for value in image.std), "image.std", image.std, "above 0"),
    ]
    return [
        *_misfits(checks),
        *_check_tensor_names(manifest),
        *check_defaults(manifest.defaults),
        *check_confidence(manifest.confidence),
    ]


def _check_tensor_names(manifest: Manifest) -> list[str]:
    """Checks state and context: names that graphs can have, each once, known types, sizes from 1."""
    given: list[StateTensor | ContextTensor] = [*manifest.state, *manifest.context]
    names = [each.name for each in given] + [each.next for each in manifest.state]
    taken = Counter([*names, *RESERVED])
    checks: list[tuple[bool, str, object, str]] = [
        (bool(manifest.state), "state", [], "at least one tensor"),
        (_sizes(manifest.feature_shape, least=1), "feature_shape", manifest.feature_shape, FROM_1),
        (_sizes(manifest.attention), "attention", manifest.attention, FROM_1),
        (manifest.vector_size >= 0, "vector_size", manifest.vector_size, "from 0"),
        *((bool(NAME.fullmatch(name)), "the name of a tensor", name, "a word of letters and digits") for name in names),
        *((taken[name] == 1, "the name of a tensor", name, "the name of no other") for name in dict.fromkeys(names)),
        *((each.dtype in DTYPES, f"{each.name}.dtype", each.dtype, f"one of {', '.join(DTYPES)}") for each in given),
        *((_sizes(each.shape), f"{each.name}.shape", each.shape, FROM_1) for each in given),
    ]
    return _misfits(checks)


def _sizes(shape: tuple[int, ...], *, least: int = 0) -> bool:
    return len(shape) >= least and all(size >= 1 for size in shape)


def check_defaults(defaults: Defaults) -> list[str]:
    """Checks that a search can use these defaults."""
    repeats, endings = defaults.no_repeat_ngram_size, defaults.bad_endings
    checks: list[tuple[bool, str, object, str]] = [
        (defaults.max_length >= 1, "defaults.max_length", defaults.max_length, "from 1"),
        (defaults.beam_size >= 1, "defaults.beam_size", defaults.beam_size, "from 1"),
        (0 <= defaults.length_penalty <= 10, "defaults.length_penalty", defaults.length_penalty, "from 0 to 10"),
        (repeats >= 0, "defaults.no_repeat_ngram_size", repeats, "from 0"),
        (all(word.split() == [word] for word in endings), "defaults.bad_endings", endings, "single words"),
    ]
    return _misfits(checks)


def _misfits(checks: list[tuple[bool, str, object, str]]) -> list[str]:
    return [f"{name} is {value!r} and must be {what}" for holds, name, value, what in checks if not holds]


def check_graphs(manifest: Manifest) -> list[str]:
    """Checks that fp32 has every graph, none is listed twice, and all have the inputs and outputs that are bound."""
    needed = (*GRAPHS, *VECTOR_GRAPHS) if manifest.vector_size else GRAPHS
    held = Counter((graph.precision, graph.graph) for graph in manifest.graphs)
    problems = [f"the manifest has no {name} graph in fp32" for name in needed if ("fp32", name) not in held]
    problems += [
        f"the manifest has the {name} graph in {precision} twice" for (precision, name), n in held.items() if n > 1
    ]
    problems += [
        f"variants.{precision} describes a precision that no graph has"
        for precision in sorted(manifest.variants.keys() - {graph.precision for graph in manifest.graphs})
    ]
    problems += [
        f"{graph.file} needs {name}, which the manifest does not list"
        for graph in manifest.graphs
        for name in graph.data
        if name not in manifest.data_sha256
    ]
    expected = tensors_of(manifest)
    return problems + [
        problem for graph in manifest.graphs for problem in _check_tensors(graph, expected.get(graph.graph))
    ]


def _check_tensors(graph: GraphFile, expected: tuple[Shapes, Shapes] | None) -> list[str]:
    if expected is None:
        return [f"{graph.file} is an unknown kind of graph, {graph.graph!r}"]
    problems = []
    for side, tensors, known in zip(("inputs", "outputs"), (graph.inputs, graph.outputs), expected, strict=True):
        names = sorted(tensor.name for tensor in tensors)
        if names != sorted(known):
            problems.append(f"{graph.file} has the {side} {names} instead of {sorted(known)}")
        for tensor in tensors:
            dtype, wanted = known.get(tensor.name, (tensor.dtype, tensor.shape))
            # a dynamic dimension may have any name
            found = [
                extent if isinstance(there, str) and isinstance(extent, str) else there
                for there, extent in zip_longest(tensor.shape, wanted)
            ]
            if (tensor.dtype, found) != (dtype, list(wanted)):
                there = f"{tensor.dtype} {list(tensor.shape)}"
                problems.append(f"{graph.file}: {tensor.name} is {there} and must be {dtype} {list(wanted)}")
    return problems
