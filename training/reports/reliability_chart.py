"""The reliability plot as a picture. Knows only what training.confidence.reliability measured."""

from io import BytesIO
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from training.confidence.reliability import Reliability

BLUE, ORANGE, GREY = "tab:blue", "tab:orange", "0.45"


def draw_reliability(title: str, threshold: float, found: Reliability) -> bytes:
    """Returns a PNG: share of good captions and mean CIDEr for each bin of confidence, with intervals of 95%."""
    figure = Figure(figsize=(10, 4.8), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title)
    left, right = figure.subplots(1, 2)
    confidences = [part.confidence for part in found.bins]
    shares, ciders = [part.good for part in found.bins], [part.cider for part in found.bins]
    left.plot([0, 1], [0, 1], color=GREY, linestyle="--", linewidth=1, label="exactly right")
    label = f"{found.bins[0].captions} captions a point"
    _points(left, confidences, shares, [part.good_interval for part in found.bins], color=BLUE, label=label)
    left.set(
        title="How often the captions are good", ylabel=f"share with CIDEr of {threshold:.2f} or more", ylim=(0, 1)
    )
    error = f"calibration error {found.calibration_error:.3f} ({found.by_chance:.3f} by chance alone)"
    left.text(0.97, 0.04, error, transform=left.transAxes, ha="right", color=GREY)
    left.yaxis.set_major_formatter(PercentFormatter(1))
    _points(right, confidences, ciders, [part.cider_interval for part in found.bins], color=ORANGE, label=None)
    right.axhline(found.cider, color=GREY, linestyle=":", linewidth=1, label=f"mean of all captions, {found.cider:.3f}")
    right.set(title="How good they are", ylabel="mean CIDEr")
    right.set_ylim(bottom=0)
    low, high = found.rank_interval
    order = f"rank correlation {found.rank_correlation:.2f} ({low:.2f} to {high:.2f})"
    right.text(0.97, 0.04, order, transform=right.transAxes, ha="right", color=GREY)
    for axis in (left, right):
        axis.set(xlabel="confidence", xlim=(0, 1))
        axis.grid(alpha=0.3)
        axis.legend(loc="upper left", frameon=False)
    content = BytesIO()
    figure.savefig(content, format="png", dpi=100)
    return content.getvalue()


def _points(axis: Any, across: list[float], up: list[float], intervals: list[tuple[float, float]], **look: Any) -> None:
    below = [value - low for value, (low, _) in zip(up, intervals, strict=True)]
    above = [high - value for value, (_, high) in zip(up, intervals, strict=True)]
    axis.errorbar(across, up, [below, above], fmt="o-", capsize=3, markersize=5, linewidth=1.2, **look)
