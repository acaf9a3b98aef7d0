"""Runs the self-check once, and saves what passed in the user's cache. Compares nothing itself.

A provider is compared with the CPU in the same precision, and the CPU in another precision with fp32, the final
reference. A file is valid for one bundle with one set of versions, options and hardware. Only passes are saved.
"""

import json
import warnings
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from engine.autotune.machine import runtime_facts
from engine.bundle.bundle import MANIFEST_FILE, sha256
from engine.cache import VARIABLE, result_file, store
from engine.errors import EngineError, ProviderError
from engine.runtime.cuda.buckets import bucket
from engine.runtime.engine_cache import saved_engine
from engine.runtime.graphs import Graphs
from engine.runtime.options import RuntimeOptions
from engine.runtime.placement import Placement
from engine.selfcheck.compare import Difference, compare

KIND = "checks"
VERSION = 3
"""Increased when the check covers more, so that earlier passes are checked again."""
DECIDING = ("tf32", "fp16", "cuda_graphs", "cudnn_conv_algo_search", "profile_images")
"""The fields of RuntimeOptions that affect the computed numbers."""


def require_shown(graphs: Graphs, batch_size: int = 1) -> bool:
    """Raises ProviderError unless graphs pass the self-check, now or earlier.

    Returns whether the check ran now, which opened every session. batch_size: most images encoded at once.
    """
    reference = _reference(graphs)
    if reference is None:
        return False
    facts = _facts(graphs, batch_size)
    path = result_file(KIND, graphs.bundle.path, facts)
    with suppress(OSError):  # no permission to read the folder
        if path is not None and path.is_file():  # its name has a digest of the facts
            return False
    try:
        require_shown(reference, batch_size)
    except ProviderError:  # the CPU itself computes this precision wrongly
        reference = _cpu(graphs, "fp32")
        if graphs.placement == reference.placement:
            raise
    _keep(path, facts, _show(graphs, reference, batch_size))
    return True


def _show(graphs: Graphs, reference: Graphs, batch_size: int) -> list[Difference]:
    """Runs the check and returns the differences, all allowed. Raises ProviderError."""
    mine, its = f"provider {graphs.placement.name!r} in {graphs.precision}", f"{reference.placement.name} in "
    its += reference.precision
    try:
        differences = compare(graphs, reference, batch_size)
    except EngineError:
        raise
    except Exception as error:  # a provider may raise anything in its runs
        why = " ".join(str(error).split()) or type(error).__name__
        raise ProviderError(f"{mine} fails here, while {its} works: {why}; choose another provider") from error
    if failed := [difference for difference in differences if not difference.passed]:
        raise ProviderError(
            f"{mine} gives wrong results here compared with {its}: {'; '.join(map(str, failed))}; choose another "
            "provider or precision, or other versions of ONNX Runtime and its plug-ins"
        )
    return differences


def _reference(graphs: Graphs) -> Graphs | None:
    """Returns what graphs are compared with; None for the final reference itself."""
    if graphs.placement != Placement.of("cpu"):
        return _cpu(graphs, graphs.precision)
    return None if graphs.precision == "fp32" else _cpu(graphs, "fp32")


def _cpu(graphs: Graphs, precision: str) -> Graphs:
    return Graphs(graphs.bundle, Placement.of("cpu"), precision, RuntimeOptions())


def _facts(graphs: Graphs, batch_size: int) -> dict[str, Any]:
    """Returns everything that the outcome depends on, as JSON values."""
    bundle, placement = graphs.bundle, graphs.placement
    encoder = bundle.graph("encoder", graphs.precision)
    return {
        "check": VERSION,
        "bundle": sha256(bundle.path / MANIFEST_FILE),  # the manifest has the SHA-256 of every other file
        "placement": placement.name,
        "precision": graphs.precision,
        "options": {name: getattr(graphs.options, name) for name in DECIDING},
        "images": bucket(batch_size) if placement.encoder.device != "cpu" else None,  # each bucket is compiled
        "engine": saved_engine(bundle.path, encoder, placement.encoder, graphs.options),
        "runtime": runtime_facts(placement.providers, graphs.options.device_id),
    }


def _keep(path: Path | None, facts: dict[str, Any], differences: list[Difference]) -> None:
    data = {"facts": facts, "differences": [asdict(difference) for difference in differences]}
    if path is None or not store(path, json.dumps(data, indent=1).encode()):
        where = "this user has no cache folder" if path is None else f"{path.parent} cannot be written"
        warnings.warn(
            f"the self-check of provider {facts['placement']} in {facts['precision']} cannot be saved: {where}; each "
            f"process repeats it, which takes a second or two; set {VARIABLE} to a folder that can be written",
            RuntimeWarning,
            stacklevel=7,
        )
