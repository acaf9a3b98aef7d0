"""The pictures of the report: latency by batch, throughput by threads, ratios, history. Measures and writes no text."""

from collections.abc import Mapping, Sequence, Set
from pathlib import Path
from typing import Any

import matplotlib

from benchmarks.harness.competitors import BASELINES, ENGINE

matplotlib.use("Agg")
from matplotlib import pyplot

Line = Mapping[float, float]
"""y by x"""
COLUMNS = 4
ENGINE_COLOURS = ("black", "crimson", "navy", "darkgreen")


def styles(competitors: Set[str]) -> dict[str, dict[str, Any]]:
    """Gives every competitor its looks, the same in all charts: the engine's lines thick, inexact baselines dashed."""
    found: dict[str, dict[str, Any]] = {}
    engines = sorted(competitor for competitor in competitors if competitor.startswith(ENGINE))
    for number, competitor in enumerate(engines):
        colour = ENGINE_COLOURS[number % len(ENGINE_COLOURS)]
        found[competitor] = {"color": colour, "linewidth": 2.2, "zorder": 3, "marker": "o", "markersize": 3}
    for number, competitor in enumerate([*BASELINES, *sorted({*competitors} - {*engines} - BASELINES.keys())]):
        dashes = "-" if competitor not in BASELINES or BASELINES[competitor].exact else "--"
        looks = {"color": f"C{number % 10}", "linestyle": dashes, "linewidth": 1.1, "marker": "o", "markersize": 3}
        found[competitor] = looks
    return {competitor: looks for competitor, looks in found.items() if competitor in competitors}


def draw_panels(panels: Mapping[str, Mapping[str, Line]], path: Path, *, y: str, level: float | None = None) -> None:
    """Writes a PNG: a panel for each workload, in it a line for each competitor over batch sizes; logarithmic axes.

    level: a value of y that is marked, as where both competitors are equally fast.
    """
    rows = -(-(len(panels) + 1) // COLUMNS)  # one place is the legend's
    figure, places = pyplot.subplots(rows, COLUMNS, figsize=(13, 2.9 * rows), layout="constrained", squeeze=False)
    look = styles({competitor for lines in panels.values() for competitor in lines})
    shown: dict[str, Any] = {}
    for axes, (work, lines) in zip(places.flat, panels.items(), strict=False):
        for competitor, line in sorted(lines.items(), reverse=True):
            (shown[competitor],) = axes.plot(list(line), list(line.values()), label=competitor, **look[competitor])
        if level is not None:
            axes.axhline(level, color="black", linewidth=0.8, linestyle=":")
        axes.set_title(work, fontsize=10)
        _ticks(axes, sorted({x for line in lines.values() for x in line}))
    for axes in places.flat[len(panels) :]:
        axes.axis("off")
    names = [competitor for competitor in look if competitor in shown]
    places.flat[len(panels)].legend([shown[name] for name in names], names, loc="center", fontsize=9)
    figure.supxlabel("images at once", fontsize=10)
    figure.supylabel(y, fontsize=10)
    _save(figure, path)


def _ticks(axes: Any, batches: Sequence[float]) -> None:
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xticks(batches, [f"{batch:g}" for batch in batches])
    axes.minorticks_off()
    low, high = axes.get_ylim()
    marks = [mark for mark in _round_numbers() if low <= mark <= high]
    axes.set_yticks(marks, [f"{mark:g}" for mark in marks])
    axes.tick_params(labelsize=8)
    axes.grid(alpha=0.3)


def _round_numbers() -> list[float]:
    return [factor * 10.0**power for power in range(-3, 6) for factor in (1, 2, 5)]


def draw_lines(lines: Mapping[str, Line], path: Path, *, x: str, y: str, names: Sequence[str] = ()) -> None:
    """Writes a PNG with one line each over numbers, from 0; `names` are put at 0, 1, ... instead of the numbers."""
    figure, axes = pyplot.subplots(figsize=(9, 4.2), layout="constrained")
    for label, line in lines.items():
        axes.plot(list(line), list(line.values()), marker="o", markersize=4, label=label)
    marks = sorted({mark for line in lines.values() for mark in line})
    axes.set_xticks(marks, [names[int(mark)] for mark in marks] if names else [f"{mark:g}" for mark in marks])
    axes.set(xlabel=x, ylabel=y)
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.tick_params(labelsize=8)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=1 if names else 2, fontsize=8)
    _save(figure, path)


def _save(figure: Any, path: Path) -> None:
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
