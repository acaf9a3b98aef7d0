"""Reads and validates a bundle, the folder that export writes and the engine reads. Runs nothing.

A bundle contains `manifest.json`, `vocabulary.json`, the ONNX graphs and the weight files that graphs share.
"""

import json
from dataclasses import dataclass
from pathlib import Path

from engine.bundle import format3
from engine.bundle.checks import (
    GRAPHS,
    VECTOR_GRAPHS,
    VOCABULARY_FILE,
    check_defaults,
    check_files,
    check_graphs,
    check_values,
    check_vocabulary,
    digest,
    listed_files,
    sha256,
)
from engine.bundle.manifest import FORMAT_VERSION, GraphFile, Manifest
from engine.bundle.vocabulary import Vocabulary
from engine.confidence import check_confidence
from engine.errors import BundleError

__all__ = [
    "GRAPHS",
    "MANIFEST_FILE",
    "VECTOR_GRAPHS",
    "VOCABULARY_FILE",
    "Bundle",
    "check_confidence",
    "check_defaults",
    "digest",
    "sha256",
    "shipped_bundle",
    "shipped_bundles",
]

MANIFEST_FILE = "manifest.json"
SHIPPED = Path(__file__).parents[1] / "models"


def shipped_bundles() -> dict[str, Path]:
    """Returns the folders of the bundles that come with the engine, by name; the default is first."""
    bundles = sorted(path.parent for path in SHIPPED.glob(f"*/{MANIFEST_FILE}"))
    return {path.name: path for path in bundles}


def shipped_bundle() -> Path:
    """Returns the folder of the default bundle that comes with the engine."""
    bundles = shipped_bundles()
    if not bundles:
        raise BundleError(f"there is no bundle in {SHIPPED}: pass the path of one, or install the engine's wheel")
    return next(iter(bundles.values()))


@dataclass(frozen=True, slots=True)
class Bundle:
    """A validated bundle."""

    path: Path
    manifest: Manifest
    vocabulary: Vocabulary

    @classmethod
    def load(cls, path: str | Path | None = None) -> "Bundle":
        """Reads and validates a bundle, given as its folder or as the name of one that ships with the engine.

        None means the default. A folder goes before a name. Raises BundleError listing every problem found, so that
        nothing fails later. A bundle of another format version is not checked further.
        """
        folder = shipped_bundle() if path is None else Path(path)
        if not folder.exists() and (named := shipped_bundles().get(str(path))):
            folder = named
        if not (folder / MANIFEST_FILE).is_file():
            what = "it has no manifest.json" if folder.is_dir() else "it is not an existing folder"
            names = ", ".join(shipped_bundles()) or "none"
            advice = f"`python -m export.to_onnx` writes bundles, and these ship with the engine: {names}"
            raise BundleError(f"{folder} is not a bundle: {what}; {advice}")
        manifest, problems = _read_manifest(folder)
        problems += check_graphs(manifest) + check_values(manifest)
        try:
            vocabulary = Vocabulary.load(folder / VOCABULARY_FILE, manifest.words)
        except (OSError, ValueError) as error:
            raise _bundle_error(folder, [f"vocabulary.json cannot be read ({error})", *problems]) from error
        problems += check_vocabulary(vocabulary, manifest)
        if problems:
            raise _bundle_error(folder, problems)
        return cls(folder, manifest, vocabulary)

    @property
    def precisions(self) -> tuple[str, ...]:
        """The available precisions, fp32 first."""
        others = {graph.precision for graph in self.manifest.graphs} - {"fp32"}
        return ("fp32", *sorted(others))

    def graph(self, name: str, precision: str = "fp32") -> GraphFile:
        """Returns the file of a graph in a precision, or in fp32 if that precision has no separate graph.

        Raises BundleError, listing the available precisions, for an unknown one.
        """
        if precision not in self.precisions:
            raise BundleError(f"{self.path} has no precision {precision!r}: choose auto, {', '.join(self.precisions)}")
        found = {graph.precision: graph for graph in self.manifest.graphs if graph.graph == name}
        return found[precision if precision in found else "fp32"]


def _bundle_error(folder: Path, problems: list[str]) -> BundleError:
    return BundleError(f"{folder} is not a valid bundle: " + "; ".join(problems))


def _read_manifest(folder: Path) -> tuple[Manifest, list[str]]:
    """Returns the manifest and the problems of the files it lists. Raises BundleError if it is itself invalid."""
    try:
        data = json.loads((folder / MANIFEST_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise _bundle_error(folder, [f"manifest.json cannot be read ({error})"]) from error
    version = data.get("format_version") if isinstance(data, dict) else None
    if version == format3.VERSION and not isinstance(version, float):
        data = format3.upgraded(data)
    elif version != FORMAT_VERSION or isinstance(version, float):
        known = f"{format3.VERSION} and {FORMAT_VERSION}"
        problem = f"its format version is {version!r} and this engine reads {known}; export it again"
        raise _bundle_error(folder, [problem])
    else:
        data = {"vector_size": 0, **data}  # the first bundles of format 4 came before vectors
    files = check_files(folder, listed_files(data))
    try:
        manifest = Manifest.from_dict(data)
    except ValueError as error:
        raise _bundle_error(folder, [str(error), *files]) from error
    return manifest, files
