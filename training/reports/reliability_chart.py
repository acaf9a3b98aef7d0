"""Draws the reliability plot. Knows only the results of training.confidence.reliability."""

from collections.abc import Mapping
from io import BytesIO
from itertools import cycle
from types import MappingProxyType
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from training.confidence.reliability import Reliability

BLUE, GREY, OTHERS = "tab:blue", "0.45", ("tab:orange", "tab:green", "tab:purple", "tab:brown")


def draw_reliability(
    title: str, threshold: float, found: Reliability, apart: Mapping[str, Reliability] = MappingProxyType({})
) -> bytes:
    """Returns a PNG: how often captions of a confidence are good, and how good the captions above a threshold are.

    apart: the same for each data set, in thinner lines. Intervals are 95%.
    """
    figure = Figure(figsize=(10, 4.8), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title)
    left, right = figure.subplots(1, 2)
    left.plot([0, 1], [0, 1], color=GREY, linestyle="--", linewidth=1, label="exactly right")
    for (name, one), colour in zip(apart.items(), cycle(OTHERS)):
        _reliability(left, one, color=colour, label=f"{name}, {one.bins[0].captions} a point", alpha=0.6, markersize=3)
        _abstention(right, one, color=colour, label=name, alpha=0.8, markersize=3)
    everything = "all, " if apart else ""
    _reliability(left, found, color=BLUE, label=f"{everything}{found.bins[0].captions} captions a point", markersize=5)
    _abstention(right, found, color=BLUE, label=f"{everything}by least confidence", markersize=5)
    for kept in found.kept:
        at = kept.share, kept.cider
        right.annotate(f"{kept.least:g}", at, (4, 5), textcoords="offset points", color=BLUE, fontsize=8)
    left.set(
        title="How often the captions are good",
        xlabel="confidence",
        ylabel=f"share with CIDEr of {threshold:.2f} or more",
        xlim=(0, 1),
        ylim=(0, 1),
    )
    error = f"calibration error {found.calibration_error:.3f} ({found.by_chance:.3f} by chance alone)"
    left.text(0.97, 0.04, error, transform=left.transAxes, ha="right", color=GREY)
    left.yaxis.set_major_formatter(PercentFormatter(1))
    right.set(
        title="How good the kept captions are",
        xlabel="share of captions kept",
        ylabel="mean CIDEr of kept captions",
        xlim=(1.02, 0),
    )
    right.set_ylim(bottom=0)
    low, high = found.rank_interval
    order = f"rank correlation {found.rank_correlation:.2f} ({low:.2f} to {high:.2f})"
    right.text(0.97, 0.04, order, transform=right.transAxes, ha="right", color=GREY)
    right.xaxis.set_major_formatter(PercentFormatter(1))
    for axis in (left, right):
        axis.grid(alpha=0.3)
        axis.legend(loc="upper left", frameon=False)
    content = BytesIO()
    figure.savefig(content, format="png", dpi=100)
    return content.getvalue()


def _reliability(axis: Any, found: Reliability, **look: Any) -> None:
    shares = [part.good for part in found.bins]
    below = [part.good - part.good_interval[0] for part in found.bins]
    above = [part.good_interval[1] - part.good for part in found.bins]
    across = [part.confidence for part in found.bins]
    axis.errorbar(across, shares, [below, above], fmt="o-", capsize=3, linewidth=1.2, **look)


def _abstention(axis: Any, found: Reliability, **look: Any) -> None:
    axis.plot([kept.share for kept in found.kept], [kept.cider for kept in found.kept], "o-", linewidth=1.2, **look)
