"""Shows saved runs on one page: `python -m benchmarks.report RUN.json... --output docs`.

Reads files from `benchmarks.ratio --json`, `pytest --benchmark-json` and `benchmarks.scale --json`, in any order, and
the history of ratios. Measures nothing. If two runs have the same row, the later one counts.
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.harness.competitors import ENGINE
from benchmarks.harness.saved import HISTORY, Outcome, Row, Run, describe
from benchmarks.harness.workloads import WORKLOADS
from benchmarks.report.charts import draw_lines, draw_panels

PAGE = "benchmarks.md"
INTRODUCTION = (
    "**How fast is the engine compared with the alternatives?** The tables say how many times as fast it is as each "
    "baseline; bold numbers are below 1, where the baseline is faster. [performance.md](performance.md) explains them."
)
Panels = dict[str, dict[str, dict[float, float]]]
"""work, competitor, batch: milliseconds, or ratios"""


@dataclass(slots=True)
class Kept:
    """The content of the files."""

    settings: list[str] = field(default_factory=list)
    rows: dict[str, Row] = field(default_factory=dict)
    outcomes: dict[tuple[str, str], Outcome] = field(default_factory=dict)
    speeds: dict[tuple[str, int, str], dict[str, Any]] = field(default_factory=dict)
    points: list[dict[str, Any]] = field(default_factory=list)

    def take(self, path: Path) -> None:
        """Adds a file. Raises ValueError for an unknown kind."""
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{path} is not valid JSON: {error}") from error
        kind = data.keys() if isinstance(data, dict) else set()
        if {"setting", "rows"} <= kind:
            run = Run.load(path)
            self.settings.append(f"`{path.name}`: {describe(run.setting)}")
            self.rows |= {row.key: row for row in run.rows}
            self.outcomes |= {(outcome.title, outcome.engine): outcome for outcome in run.outcomes}
        elif {"benchmarks", "machine_info"} <= kind:
            cpu = data["machine_info"].get("cpu", {}).get("brand_raw", "unknown processor")
            commit = data.get("commit_info", {}).get("id", "unknown")[:7]
            self.settings.append(f"`{path.name}`: {cpu}; pytest-benchmark; commit {commit}, {data['datetime'][:10]}")
            for benchmark in data["benchmarks"]:
                if "p50_ms" in (said := benchmark["extra_info"]):
                    self.speeds[said["work"], said["batch"], said["side"]] = said
        elif {"points", "cores"} <= kind:
            self.settings.append(f"`{path.name}`: cost of scale on {data['cores']} cores; bundle {data['bundle']}")
            self.points += data["points"]
        else:
            raise ValueError(f"{path} is not a run saved by benchmarks.ratio, benchmarks.scale or pytest-benchmark")

    def latencies(self) -> Panels:
        """Milliseconds of a call: pytest-benchmark's medians, or else those of the ratios."""
        found: Panels = {}
        times = {place: said["p50_ms"] for place, said in self.speeds.items()}
        if not times:
            for row in self._main_rows():
                times[row.work, row.batch, row.engine] = row.engine_ms
                times[row.work, row.batch, row.baseline] = row.baseline_ms
        for (work, batch, competitor), milliseconds in sorted(times.items()):
            found.setdefault(work, {}).setdefault(competitor, {})[batch] = milliseconds
        return _in_order(found)

    def ratios(self, engine: str) -> Panels:
        """How many times as fast an engine is as each baseline."""
        found: Panels = {}
        for row in sorted(self._main_rows(), key=lambda row: row.batch):
            if row.engine == engine:
                found.setdefault(row.work, {}).setdefault(row.baseline, {})[row.batch] = row.ratios[1]
        return _in_order(found)

    def _main_rows(self) -> list[Row]:
        """The rows of the most frequent model, without comparisons of the engine with itself."""
        models = [row.model for row in self.rows.values()]
        usual = max(set(models), key=models.count, default="")
        return [row for row in self.rows.values() if row.model == usual and not row.baseline.startswith(ENGINE)]

    def engines(self) -> list[str]:
        """The engines that were compared with baselines."""
        return sorted({row.engine for row in self._main_rows()})


def _in_order(found: Panels) -> Panels:
    return {work: found[work] for work in WORKLOADS if work in found}


def write_page(kept: Kept, history: Sequence[Mapping[str, Any]], folder: Path) -> Path:
    """Writes the page and its charts to a folder; sections without measurements are left out."""
    folder.mkdir(parents=True, exist_ok=True)
    parts = [
        "# Benchmarks",
        INTRODUCTION,
        "Made by `python -m benchmarks.report` from these runs:",
        _items(kept.settings),
    ]
    if kept.outcomes:
        parts += ["## Goals", _outcomes(list(kept.outcomes.values()))]
    for engine in kept.engines():
        panels = kept.ratios(engine)
        name = f"benchmarks-ratio-{engine.removeprefix(ENGINE)}.png"
        several = {
            work: lines for work, lines in panels.items() if len({b for line in lines.values() for b in line}) > 1
        }
        parts.append(f"## Speed relative to each baseline: {engine}")
        if several:
            draw_panels(several, folder / name, y="times as fast", level=1)
            parts.append(f"Above the dotted line the engine is faster.\n\n![ratio to each baseline]({name})")
        parts.append(_ratios(panels))
    if latencies := {work: lines for work, lines in kept.latencies().items() if WORKLOADS[work].batches != (1,)}:
        draw_panels(latencies, folder / "benchmarks-latency.png", y="milliseconds a call (median)")
        parts += ["## Latency by batch", "![latency by batch](benchmarks-latency.png)"]
    threads = [point for point in kept.points if point["curve"] == "threads"]
    if threads:
        lines: dict[str, dict[float, float]] = {}
        for point in sorted(threads, key=lambda point: (point["line"], point["precision"], point["x"])):
            lines.setdefault(f"{point['line']}, {point['precision']}", {})[point["x"]] = point["rate"]
        draw_lines(lines, folder / "benchmarks-threads.png", x="threads", y="images a second")
        parts += ["## Throughput by threads", "![throughput by threads](benchmarks-threads.png)"]
    if history:
        names = [f"{line['commit']}\n{line['date'][:10]}" for line in history]
        keys = dict.fromkeys(key for line in history for key in line["ratios"])
        drawn: dict[str, dict[float, float]] = {
            key: {place: line["ratios"][key] for place, line in enumerate(history) if key in line["ratios"]}
            for key in keys
        }
        draw_lines(drawn, folder / "benchmarks-history.png", x="commit", y="times as fast", names=names)
        parts += ["## Ratios over commits", "![ratios over commits](benchmarks-history.png)"]
    if kept.speeds:
        parts += ["## Percentiles", _percentiles(kept.speeds)]
    page = folder / PAGE
    page.write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    return page


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _items(lines: Sequence[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _outcomes(outcomes: Sequence[Outcome]) -> str:
    rows = [
        [
            outcome.title,
            outcome.engine.removeprefix(ENGINE),
            f"{'at most' if outcome.cost else 'at least'} {outcome.asked:g}x",
            f"{outcome.reached:.2f}x",
            "pass" if outcome.passed else "**fell short**",
        ]
        for outcome in outcomes
    ]
    return _table(["goal", "precision", "required", "reached", ""], rows)


def _ratios(panels: Panels) -> str:
    baselines = sorted({baseline for lines in panels.values() for baseline in lines})
    rows = []
    for work, lines in panels.items():
        for batch in sorted({batch for line in lines.values() for batch in line}):
            found = [lines.get(baseline, {}).get(batch) for baseline in baselines]
            cells = ["" if ratio is None else f"{ratio:.2f}" if ratio >= 1 else f"**{ratio:.2f}**" for ratio in found]
            rows.append([work, f"{batch:g}", *cells])
    return _table(["work", "batch", *baselines], rows) + "\n\nBold: the baseline is faster."


def _percentiles(speeds: Mapping[tuple[str, int, str], Mapping[str, Any]]) -> str:
    order = list(WORKLOADS)
    rows = [
        [
            work,
            str(batch),
            competitor,
            *(f"{said[f'p{share}_ms']:.3g}" for share in (50, 90, 99)),
            f"{said['images_per_second']:.4g}",
        ]
        for (work, batch, competitor), said in sorted(
            speeds.items(), key=lambda item: (order.index(item[0][0]), item[0][1:])
        )
    ]
    return _table(["work", "batch", "side", "p50 ms", "p90 ms", "p99 ms", "images a second"], rows)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.report", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path, help="saved runs")
    parser.add_argument("--output", type=Path, default=Path("docs"), help="folder for the page and charts (docs)")
    parser.add_argument("--history", type=Path, default=HISTORY, help="a history from benchmarks.ratio --history")
    options = parser.parse_args(arguments)
    kept = Kept()
    try:
        for path in options.runs:
            kept.take(path)
        lines = options.history.read_text(encoding="utf-8").splitlines() if options.history.is_file() else []
        history = [json.loads(line) for line in lines]
    except (OSError, ValueError) as error:
        print(f"benchmarks.report: {error}", file=sys.stderr)
        return 2
    print(write_page(kept, history, options.output))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
