"""Checks of a bundle. Each returns its problems as a list of sentences; raises nothing and runs nothing."""

from collections import Counter
from itertools import zip_longest
from math import inf, isfinite
from pathlib import Path
from typing import Any

from engine.bundle.manifest import RESAMPLE_FILTERS, RESIZE_RULES, Defaults, GraphFile, Manifest
from engine.bundle.vocabulary import SPECIAL_WORDS, Vocabulary, split
from engine.confidence import check_confidence

VOCABULARY_FILE = "vocabulary.json"

# inputs and outputs of each graph: dtype, then dimensions; names that are not sizes in the manifest are dynamic
_FEATURES = {"features": ("float32", "batch", "feature_size")}
_STATE = dict.fromkeys(("hidden", "cell"), ("float32", "rows", "units"))
_NEXT = dict.fromkeys(("next_hidden", "next_cell"), ("float32", "rows", "units"))
_FED = {
    "token_ids": ("int64", "rows"),
    "parent_rows": ("int64", "rows"),
    **dict.fromkeys(("hidden", "cell"), ("float32", "state_rows", "units")),
    "bias": ("float32", "bias_rows", "vocabulary_size"),
}
_TENSORS: dict[str, tuple[dict[str, tuple[str | int, ...]], dict[str, tuple[str | int, ...]]]] = {
    "encoder": ({"pixels": ("uint8", "batch", "image.height", "image.width", 3)}, {**_FEATURES}),
    "decoder_init": ({**_FEATURES}, {**_STATE}),
    "decoder_step": (
        {"token_ids": ("int64", "rows"), **_STATE},
        {"log_probs": ("float32", "rows", "vocabulary_size"), **_NEXT},
    ),
    "search_step": (
        {**_FED, "k": ("int64", 1)},
        {"ids": ("int64", "rows", "candidates"), "log_probs": ("float32", "rows", "candidates"), **_NEXT},
    ),
    "greedy_step": ({**_FED}, {"ids": ("int64", "rows"), "logits": ("float32", "rows"), **_NEXT}),
    "sample_step": (
        {**_FED, "uniforms": ("float32", "rows"), "temperature": ("float32", "rows")},
        {"ids": ("int64", "rows"), "log_probs": ("float32", "rows"), **_NEXT},
    ),
}
GRAPHS = tuple(_TENSORS)


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
    problems = []
    if len(vocabulary) != manifest.vocabulary_size:
        problems.append(f"{VOCABULARY_FILE} has {len(vocabulary)} words, the manifest says {manifest.vocabulary_size}")
    there, stated = vocabulary.ids, manifest.special_ids
    return problems + [
        f"{word} has the id {there[word]} in the vocabulary and {stated.get(word)} in the manifest"
        for word in SPECIAL_WORDS
        if there[word] != stated.get(word)
    ]


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
    return [*_misfits(checks), *check_defaults(manifest.defaults), *check_confidence(manifest.confidence)]


def check_defaults(defaults: Defaults) -> list[str]:
    """Checks that a search can use these defaults."""
    repeats, endings = defaults.no_repeat_ngram_size, defaults.bad_endings
    checks: list[tuple[bool, str, object, str]] = [
        (defaults.max_length >= 1, "defaults.max_length", defaults.max_length, "from 1"),
        (defaults.beam_size >= 1, "defaults.beam_size", defaults.beam_size, "from 1"),
        (0 <= defaults.length_penalty <= 10, "defaults.length_penalty", defaults.length_penalty, "from 0 to 10"),
        (repeats >= 0, "defaults.no_repeat_ngram_size", repeats, "from 0"),
        (all(split(word) == [word] for word in endings), "defaults.bad_endings", endings, "single lower-case words"),
    ]
    return _misfits(checks)


def _misfits(checks: list[tuple[bool, str, object, str]]) -> list[str]:
    return [f"{name} is {value!r} and must be {what}" for holds, name, value, what in checks if not holds]


def check_graphs(manifest: Manifest) -> list[str]:
    """Checks that fp32 has every graph, none is listed twice, and all have the inputs and outputs that are bound."""
    held = Counter((graph.precision, graph.graph) for graph in manifest.graphs)
    problems = [f"the manifest has no {name} graph in fp32" for name in GRAPHS if ("fp32", name) not in held]
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
    return problems + [problem for graph in manifest.graphs for problem in _check_tensors(graph, manifest)]


def _check_tensors(graph: GraphFile, manifest: Manifest) -> list[str]:
    if graph.graph not in _TENSORS:
        return [f"{graph.file} is an unknown kind of graph, {graph.graph!r}"]
    sizes: dict[str | int, int] = {
        "feature_size": manifest.feature_size,
        "units": manifest.units,
        "vocabulary_size": manifest.vocabulary_size,
        "image.height": manifest.image.height,
        "image.width": manifest.image.width,
    }
    problems = []
    sides = zip(("inputs", "outputs"), (graph.inputs, graph.outputs), _TENSORS[graph.graph], strict=True)
    for side, tensors, expected in sides:
        names = sorted(tensor.name for tensor in tensors)
        if names != sorted(expected):
            problems.append(f"{graph.file} has the {side} {names} instead of {sorted(expected)}")
        for tensor in tensors:
            dtype, *extents = expected.get(tensor.name, (tensor.dtype, *tensor.shape))
            wanted = [sizes.get(extent, extent) for extent in extents]
            # a dynamic dimension may have any name
            found = [
                extent if isinstance(there, str) and isinstance(extent, str) else there
                for there, extent in zip_longest(tensor.shape, wanted)
            ]
            if (tensor.dtype, found) != (dtype, wanted):
                there = f"{tensor.dtype} {list(tensor.shape)}"
                problems.append(f"{graph.file}: {tensor.name} is {there} and must be {dtype} {wanted}")
    return problems
