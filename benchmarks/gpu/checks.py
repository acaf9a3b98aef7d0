"""Compares a competitor's results with fp32 on a CPU, within tolerances by precision. Times nothing."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.gpu.competitors import Competitor, Engine
from engine import Greedy, RuntimeOptions

CHECKED = 16  # images
TOLERANCE = {"fp32": 1e-4, "fp16": 2e-2, "int8": 0.3}
"""Most error of a feature, over the largest feature. TF32, which fp32 must not be, is off by about 1e-3."""
COSINE = {"fp32": 0.999999, "fp16": 0.9995, "int8": 0.98}
SAME = {"fp32": 1.0, "fp16": 0.75, "int8": 0.4}
"""Least share of greedy captions that are those of fp32 on a CPU; in fp32 one may differ where two words tie."""
TIE = 1e-4


@dataclass(frozen=True, slots=True)
class Task:
    """The work of each process. reference: features and captions in fp32 on a CPU, for the first images."""

    bundle: Path
    pixels: np.ndarray
    batches: tuple[int, ...]
    seconds: float = 0.5  # of one figure
    features: np.ndarray = field(default_factory=lambda: np.empty(0))
    captions: tuple[tuple[str, float], ...] = ()


def reference(task: Task) -> dict[str, Any]:
    """Computes the reference for all competitors: the first images in fp32 on the CPU."""
    competitor = Engine(task.bundle, CHECKED, provider="cpu", precision="fp32", runtime=RuntimeOptions())
    pixels = task.pixels[:CHECKED]
    captions = competitor.caption(pixels, Greedy())
    return {
        "features": np.asarray(competitor.encode(pixels)).tolist(),
        "captions": [(caption.text, caption.score) for caption in captions],
    }


def check(competitor: Competitor, precision: str, task: Task) -> dict[str, Any]:
    """Compares features and captions with the reference; "fault" names what is out of bounds, or is None."""
    pixels, wanted = task.pixels[: len(task.features)], np.asarray(task.features, np.float64)
    found = np.asarray(competitor.encode(pixels)).astype(np.float64)
    error = float(np.abs(found - wanted).max() / np.abs(wanted).max())
    norms = np.linalg.norm(found, axis=1) * np.linalg.norm(wanted, axis=1)
    cosine = float(((found * wanted).sum(axis=1) / norms).min())
    captions = competitor.caption(pixels, Greedy())
    same = [
        text == caption.text or (precision == "fp32" and abs(score - caption.score) < TIE)
        for (text, score), caption in zip(task.captions, captions, strict=True)
    ]
    share = sum(same) / len(same)
    faults = [
        what
        for holds, what in (
            (error <= TOLERANCE[precision], f"features are off by {error:.1e} (at most {TOLERANCE[precision]:.0e})"),
            (cosine >= COSINE[precision], f"features' cosine is {cosine:.6f} (at least {COSINE[precision]})"),
            (share >= SAME[precision], f"{share:.0%} of the captions are the same (at least {SAME[precision]:.0%})"),
        )
        if not holds  # a NaN holds nowhere
    ]
    return {"error": error, "cosine": cosine, "same_captions": share, "fault": "; ".join(faults) or None}
