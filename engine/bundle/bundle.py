"""The bundle: the directory that passes from export to engine. Owns reading and validating it; runs nothing.

A bundle holds `manifest.json`, `vocabulary.json`, the ONNX graphs and the weight files that graphs share.
"""

import json
from dataclasses import dataclass
from pathlib import Path

from engine.bundle.checks import (
    GRAPHS,
    VOCABULARY_FILE,
    default_faults,
    file_faults,
    graph_faults,
    listed_files,
    sha256,
    value_faults,
    vocabulary_faults,
)
from engine.bundle.manifest import FORMAT_VERSION, GraphFile, Manifest
from engine.bundle.vocabulary import Vocabulary
from engine.confidence import confidence_faults
from engine.errors import BundleError

__all__ = [
    "GRAPHS",
    "MANIFEST_FILE",
    "VOCABULARY_FILE",
    "Bundle",
    "confidence_faults",
    "default_faults",
    "sha256",
    "shipped_bundle",
]

MANIFEST_FILE = "manifest.json"
SHIPPED = Path(__file__).parents[1] / "models"


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

        Raises BundleError, which lists every fault that was found: nothing is left to fail later. A bundle of another
        format version is not looked into further.
        """
        folder = shipped_bundle() if path is None else Path(path)
        if not (folder / MANIFEST_FILE).is_file():
            what = "holds no manifest.json" if folder.is_dir() else "is not a folder"
            raise BundleError(f"{folder} is no bundle: it {what}; `python -m export.to_onnx` writes bundles")
        manifest, faults = _read_manifest(folder)
        faults += graph_faults(manifest) + value_faults(manifest)
        try:
            vocabulary = Vocabulary.load(folder / VOCABULARY_FILE)
        except (OSError, ValueError) as error:
            raise _bundle_error(folder, [f"vocabulary.json cannot be read ({error})", *faults]) from error
        faults += vocabulary_faults(vocabulary, manifest)
        if faults:
            raise _bundle_error(folder, faults)
        return cls(folder, manifest, vocabulary)

    @property
    def precisions(self) -> tuple[str, ...]:
        """The precisions that can be asked for, fp32 first."""
        others = {graph.precision for graph in self.manifest.graphs} - {"fp32"}
        return ("fp32", *sorted(others))

    def graph(self, name: str, precision: str = "fp32") -> GraphFile:
        """Returns the file of a graph in a precision, or in fp32 where that precision has no graph of its own.

        Raises BundleError naming the precisions there are.
        """
        if precision not in self.precisions:
            raise BundleError(f"{self.path} has no precision {precision!r}; it holds {', '.join(self.precisions)}")
        found = {graph.precision: graph for graph in self.manifest.graphs if graph.graph == name}
        return found[precision if precision in found else "fp32"]


def _bundle_error(folder: Path, faults: list[str]) -> BundleError:
    return BundleError(f"{folder} is not a valid bundle: " + "; ".join(faults))


def _read_manifest(folder: Path) -> tuple[Manifest, list[str]]:
    """Returns the manifest, and what is wrong with the files it lists; raises BundleError for what it is itself."""
    try:
        data = json.loads((folder / MANIFEST_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise _bundle_error(folder, [f"manifest.json cannot be read ({error})"]) from error
    version = data.get("format_version") if isinstance(data, dict) else None
    if version != FORMAT_VERSION or isinstance(version, bool):
        fault = f"its format version is {version!r} and this engine reads {FORMAT_VERSION}; export it again"
        raise _bundle_error(folder, [fault])
    files = file_faults(folder, listed_files(data))
    try:
        manifest = Manifest.from_dict(data)
    except ValueError as error:
        raise _bundle_error(folder, [str(error), *files]) from error
    return manifest, files
