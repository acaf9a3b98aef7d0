"""The bundle: the directory that passes from export to engine. Owns reading and validating it; runs nothing.

A bundle holds `manifest.json`, `vocabulary.json`, the ONNX graphs and the weight files that graphs share.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from engine.errors import BundleError
from engine.manifest import FORMAT_VERSION, GraphFile, Manifest
from engine.vocabulary import SPECIAL_WORDS, Vocabulary

MANIFEST_FILE = "manifest.json"
VOCABULARY_FILE = "vocabulary.json"
SHIPPED = Path(__file__).parent / "models"
GRAPHS = ("encoder", "decoder_init", "decoder_step", "search_step")


def sha256(path: Path) -> str:
    """Returns the SHA-256 of a file in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def shipped_bundle() -> Path:
    """Returns the folder of the bundle that comes with the engine."""
    bundles = sorted(path.parent for path in SHIPPED.glob(f"*/{MANIFEST_FILE}"))
    if not bundles:
        raise BundleError(f"no bundle lies under {SHIPPED}: name one, or install the engine's wheel")
    return bundles[0]


@dataclass(frozen=True, slots=True)
class Bundle:
    """A validated bundle."""

    path: Path
    manifest: Manifest
    vocabulary: Vocabulary

    @classmethod
    def load(cls, path: str | Path | None = None) -> "Bundle":
        """Reads and validates a bundle; None means the one that ships with the engine.

        Raises BundleError, which lists every fault that was found: nothing is left to fail later.
        """
        folder = shipped_bundle() if path is None else Path(path)
        if not (folder / MANIFEST_FILE).is_file():
            what = "holds no manifest.json" if folder.is_dir() else "is not a folder"
            raise BundleError(f"{folder} is no bundle: it {what}; `python -m export.to_onnx` writes bundles")
        manifest = _read_manifest(folder)
        vocabulary, faults = _read_vocabulary(folder, manifest)
        faults += _file_faults(folder, manifest)
        if vocabulary is None or faults:
            raise _bundle_error(folder, faults)
        return cls(folder, manifest, vocabulary)

    def graph(self, name: str, precision: str = "fp32") -> GraphFile:
        """Returns the file of a graph in a precision. Raises BundleError naming the precisions there are."""
        for graph in self.manifest.graphs:
            if (graph.graph, graph.precision) == (name, precision):
                return graph
        there = sorted({graph.precision for graph in self.manifest.graphs if graph.graph == name})
        raise BundleError(f"{self.path} holds no {name} in precision {precision!r}; it holds {there}")


def _bundle_error(folder: Path, faults: list[str]) -> BundleError:
    return BundleError(f"{folder} is not a valid bundle: " + "; ".join(faults))


def _read_manifest(folder: Path) -> Manifest:
    try:
        data = json.loads((folder / MANIFEST_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _bundle_error(folder, [f"manifest.json cannot be read ({error})"]) from error
    version = data.get("format_version") if isinstance(data, dict) else None
    if version != FORMAT_VERSION:
        fault = f"its format version is {version!r} and this engine reads {FORMAT_VERSION}; export it again"
        raise _bundle_error(folder, [fault])
    try:
        return Manifest.from_dict(data)
    except ValueError as error:
        raise _bundle_error(folder, [str(error)]) from error


def _read_vocabulary(folder: Path, manifest: Manifest) -> tuple[Vocabulary | None, list[str]]:
    try:
        vocabulary = Vocabulary.load(folder / VOCABULARY_FILE)
    except (OSError, ValueError) as error:
        return None, [f"vocabulary.json cannot be read ({error})"]
    faults = []
    if len(vocabulary) != manifest.vocabulary_size:
        faults.append(f"vocabulary.json has {len(vocabulary)} words and the manifest {manifest.vocabulary_size}")
    faults += [
        f"{word} is word {vocabulary.ids[word]} of the vocabulary and {manifest.special_ids.get(word)} in the manifest"
        for word in SPECIAL_WORDS
        if vocabulary.ids[word] != manifest.special_ids.get(word)
    ]
    return vocabulary, faults


def _file_faults(folder: Path, manifest: Manifest) -> list[str]:
    there = {graph.graph for graph in manifest.graphs}
    faults = [f"the manifest names no {name} graph" for name in GRAPHS if name not in there]
    for name, expected in _digests(manifest):
        path = folder / name
        if Path(name).name != name:
            faults.append(f"{name!r} is not a plain file name")
        elif not path.is_file():
            faults.append(f"{name} is missing")
        elif sha256(path) != expected:
            faults.append(f"{name} is corrupt (its SHA-256 differs from the manifest's)")
    faults += [
        f"{graph.file} needs {name}, which the manifest does not list"
        for graph in manifest.graphs
        for name in graph.data
        if name not in manifest.data_sha256
    ]
    return faults + [fault for graph in manifest.graphs for fault in _shape_faults(graph, manifest)]


def _digests(manifest: Manifest) -> Iterator[tuple[str, str]]:
    yield from ((graph.file, graph.sha256) for graph in manifest.graphs)
    yield from manifest.data_sha256.items()


def _shape_faults(graph: GraphFile, manifest: Manifest) -> list[str]:
    """Checks a graph's named tensors against what the engine binds and the sizes that the manifest states."""
    faults = []
    sizes = {"features": manifest.feature_size, "hidden": manifest.units, "cell": manifest.units}
    for side, tensors, expected in (
        ("input", graph.inputs, _INPUTS.get(graph.graph)),
        ("output", graph.outputs, _OUTPUTS.get(graph.graph)),
    ):
        names = {tensor.name for tensor in tensors}
        if expected is not None and names != expected:
            faults.append(f"{graph.file} has the {side}s {sorted(names)} instead of {sorted(expected)}")
        faults += [
            f"{graph.file}: {tensor.name} is {tensor.shape[-1]} wide and the manifest says {sizes[tensor.name]}"
            for tensor in tensors
            if tensor.name in sizes and (not tensor.shape or tensor.shape[-1] != sizes[tensor.name])
        ]
    return faults


_STATE, _NEXT = {"hidden", "cell"}, {"next_hidden", "next_cell"}
_INPUTS = {
    "encoder": {"pixels"},
    "decoder_init": {"features"},
    "decoder_step": {"token_ids"} | _STATE,
    "search_step": {"token_ids", "parent_rows", "bias", "k"} | _STATE,
}
_OUTPUTS = {
    "encoder": {"features"},
    "decoder_init": _STATE,
    "decoder_step": {"log_probs"} | _NEXT,
    "search_step": {"ids", "log_probs"} | _NEXT,
}
