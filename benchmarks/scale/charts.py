"""The curves of `benchmarks.scale` in words and pictures. Computes why a curve bends where the numbers say so."""

import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.scale.points import BATCH, Point

Line = dict[int, Point]
"""The points of one line by their x."""

LABELS = {
    "images": "images in one call",
    "threads": "CPU threads",
    "callers": "threads that call, one photograph each",
    "beam": "beam size",
    "vocabulary": "words",
}
FULL = 0.9
"""Share of the greatest rate from which a curve counts as flat."""


def lines(points: Sequence[Point]) -> dict[tuple[str, str], Line]:
    """Sorts points by (precision, line), and by x within."""
    found: dict[tuple[str, str], Line] = {}
    for point in sorted(points, key=lambda point: (point.precision, point.line, point.x)):
        found.setdefault((point.precision, point.line), {})[point.x] = point
    return found


def explain(curve: str, points: Sequence[Point], cores: int) -> str:
    """Says of each precision how the curve runs, where it bends and why, as far as its numbers tell."""
    by_line = lines(points)
    precisions = dict.fromkeys(precision for precision, _ in by_line)
    said = []
    for precision in precisions:
        of = {line: found for (name, line), found in by_line.items() if name == precision}
        said.append(f"{precision}: {EXPLAIN[curve](of, cores)}")
    return "\n".join(said)


def _images(of: dict[str, Line], cores: int) -> str:
    line = of["JPEG to caption"]
    first, last = line[min(line)], line[max(line)]
    best, bend = _best(line)
    return (
        f"one call with {_count(first.x, 'image')} takes {first.p50:.0f} ms, {first.rate:.0f} a second: images, "
        f"encoder and search wait for one another. From {bend} on the rate is within {1 - FULL:.0%} of the best, "
        f"{best.rate:.0f} a second ({best.rate / first.rate:.1f} times as many): each of {cores} cores has images of "
        f"its own, the next batch is read while one is searched, and what a step costs by itself is shared. "
        f"{last.x:,} images run at {last.rate:.0f} a second with {last.peak:.0f} MB at most, {first.x} had "
        f"{first.peak:.0f} MB: at most two batches of {BATCH} are in memory."
    )


def _threads(of: dict[str, Line], cores: int) -> str:
    line, features, search = (of[name] for name in ("JPEG to caption", "JPEG to features", "search"))
    one, most = line[min(line)], line[max(line)]
    full = line.get(cores, most)
    text = (
        f"with {_count(one.x, 'thread')} {one.rate:.0f} images a second, of whose time images and encoder take "
        f"{one.rate / features[one.x].rate:.0%} and the search {one.rate / search[one.x].rate:.0%}; with "
        f"{_count(full.x, 'thread')} {full.rate / one.rate:.2f} times as many"
    )
    if full.x > one.x and full.rate > one.rate:
        alone = (one.rate / full.rate - one.x / full.x) / (1 - one.x / full.x)  # Amdahl's law
        text += f", as if {max(0, alone):.0%} of the work could not be shared out"
    gains = ", ".join(f"{name} {found[full.x].rate / found[one.x].rate:.2f}" for name, found in of.items())
    text += f" ({gains})."
    if most.x > cores >= full.x:
        beyond = ", ".join(f"{name} {found[most.x].rate / found[full.x].rate - 1:+.0%}" for name, found in of.items())
        text += f" The curve bends at the {cores} cores: threads beyond them take turns. With {most.x}: {beyond}."
    return text


def _callers(of: dict[str, Line], cores: int) -> str:
    line = of["one photograph a call"]
    one, most = line[min(line)], line[max(line)]
    best, bend = _best(line)
    return (
        f"one caller gets {one.rate:.0f} images a second (p50 {one.p50:.0f} ms, p99 {one.p99:.0f} ms), with all "
        f"{cores} cores for each layer. From {_count(bend, 'caller')} on the rate is within {1 - FULL:.0%} of the "
        f"best, {best.rate:.0f} a second with {best.x}: the cores are busy. More callers only wait in turn: {most.x} "
        f"callers / {most.rate:.0f} a second = {1000 * most.x / most.rate:.0f} ms each (Little's law), measured p50 "
        f"{most.p50:.0f} ms, p99 {most.p99:.0f} ms. {most.x - one.x} more callers take {most.peak - one.peak:.0f} MB."
    )


def _beam(of: dict[str, Line], cores: int) -> str:
    whole, search, features = (of[name] for name in ("JPEG to caption", "search", "JPEG to features"))
    first, last = min(whole), max(whole)
    fixed, each = _fit(search)
    five = f"; beam 5 costs {whole[first].rate / whole[5].rate:.2f} times beam {first}" if 5 in whole else ""
    return (
        f"the search of {BATCH} images takes {fixed:.1f} ms and {each:.1f} ms for each beam. From beam {first} to "
        f"{last} it becomes {search[first].rate / search[last].rate:.1f} times as dear, the way from JPEG to caption "
        f"{whole[first].rate / whole[last].rate:.2f} times{five}. Images and encoder, which no beam changes, take as "
        f"long as {whole[first].rate / features[first].rate:.0%} of the whole at beam {first} and "
        f"{whole[last].rate / features[last].rate:.0%} at {last}: the more they are, the flatter the curve."
    )


def _vocabulary(of: dict[str, Line], cores: int) -> str:
    said = []
    for name, line in of.items():
        fixed, each = _fit(line)
        first, last = line[min(line)], line[max(line)]
        bend = f"as much at {fixed / each:,.0f} words, where the curve bends; " if fixed > 0 < each else ""
        said.append(
            f"{name}: {BATCH} images take {fixed:.1f} ms whatever the words are (LSTM, bookkeeping) and "
            f"{1000 * each:.2f} ms for each 1,000 words (projection, softmax, choice), {bend}"
            f"{last.x / first.x:.0f} times the words take {first.rate / last.rate:.1f} times as long and "
            f"{last.peak - first.peak:.0f} MB more."
        )
    return " ".join(said)


EXPLAIN: dict[str, Callable[[dict[str, Line], int], str]] = {
    "images": _images,
    "threads": _threads,
    "callers": _callers,
    "beam": _beam,
    "vocabulary": _vocabulary,
}


def _fit(line: Line) -> tuple[float, float]:
    """Returns the milliseconds of a call that do not depend on x, and those for each x: least squares, in shares."""
    x = np.array(list(line), float)
    y = np.array([point.p50 for point in line.values()])
    fixed, each = np.linalg.lstsq(np.stack([1 / y, x / y], axis=1), np.ones(len(x)), rcond=None)[0]
    return float(fixed), float(each)


def _best(line: Line) -> tuple[Point, int]:
    """Returns the point of the greatest rate, and the least x whose rate is nearly that."""
    best = max(line.values(), key=lambda point: point.rate)
    return best, min(x for x, point in line.items() if point.rate >= FULL * best.rate)


def _count(number: int, what: str) -> str:
    return f"1 {what}" if number == 1 else f"{number} {what}s"


def draw_chart(curve: str, points: Sequence[Point], said: str, path: Path) -> None:
    """Writes a PNG: the rate, beside it the latency (callers) or the peak memory, and the explanation below."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    text = "\n".join(textwrap.fill(line, 150) for line in said.splitlines())
    height = 3.9 + 0.16 * (text.count("\n") + 1)
    figure = pyplot.figure(figsize=(10, height))
    low = 1 - 3.3 / height
    grid = figure.add_gridspec(1, 2, left=0.07, right=0.98, top=1 - 0.12 / height, bottom=low, wspace=0.22)
    rate, other = figure.add_subplot(grid[0]), figure.add_subplot(grid[1])
    by_line = lines(points)
    colours = {name: f"C{i}" for i, name in enumerate(dict.fromkeys(line for _, line in by_line))}
    dashes = dict(zip(dict.fromkeys(precision for precision, _ in by_line), ("-", "--", ":"), strict=False))
    for (precision, name), line in by_line.items():
        style: dict[str, Any] = {"color": colours[name], "linestyle": dashes.get(precision, "-."), "marker": "."}
        x = list(line)
        rate.plot(x, [point.rate for point in line.values()], label=f"{name}, {precision}", **style)
        if curve == "callers":
            other.plot(x, [point.p50 for point in line.values()], label=f"p50, {precision}", **style)
            other.plot(x, [point.p99 for point in line.values()], label=f"p99, {precision}", **style | {"color": "C1"})
        elif name == next(iter(colours)):  # a point's lines share a process, and so its memory
            other.plot(x, [point.peak for point in line.values()], label=precision, **style | {"color": "C3"})
    other.set_ylabel("ms a call" if curve == "callers" else "peak MB")
    rate.set_ylabel("images a second")
    for axes in (rate, other):
        axes.set_xlabel(LABELS[curve])
        axes.set_ylim(bottom=0)
        if curve in ("images", "threads", "vocabulary"):
            axes.set_xscale("log")
        ticks = sorted({point.x for point in points})
        axes.set_xticks(ticks, [f"{tick:,}" for tick in ticks], fontsize=7)
        axes.minorticks_off()
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    figure.text(0.02, 0.1 / height, text, fontsize=8, va="bottom")
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
