"""Manifests of format 3, in which every decoder was one LSTM that began from a vector. Reads no file."""

from dataclasses import asdict
from typing import Any

from engine.bundle.vocabulary import RULES

VERSION = 3
STATE = "hidden", "cell"
DROPPED = "greedy_step"
"""A graph that was exported and never run."""


def upgraded(data: dict[str, Any]) -> dict[str, Any]:
    """Returns a manifest of format 3 in format 4; what is missing or wrong in it stays so."""
    new = {key: value for key, value in data.items() if key not in ("feature_size", "units", "special_ids")}
    new["format_version"] = VERSION + 1
    if "feature_size" in data:
        new["feature_shape"] = [data["feature_size"]]
    if "units" in data:
        new["state"] = [
            {"name": name, "next": f"next_{name}", "dtype": "float32", "shape": [data["units"]]} for name in STATE
        ]
    graphs = data.get("graphs")
    if isinstance(graphs, list):
        new["graphs"] = [each for each in graphs if not (isinstance(each, dict) and each.get("graph") == DROPPED)]
    return {**new, "context": [], "attention": [], "vector_size": 0, "words": asdict(RULES)}
