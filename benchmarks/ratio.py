"""Times the engine and the baselines, interleaved, and prints Markdown tables: `python -m benchmarks.ratio`.

By itself it compares the engine in each precision with PyTorch. --grid measures all workloads, batches and baselines,
and marks where the engine is slower than the best of them.
"""

import statistics
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from benchmarks.harness.competitors import BATCHES, ENGINE, Competitors, Engine, Kind
from benchmarks.harness.interleave import interleave, ratios
from benchmarks.harness.saved import Row, Run, describe, setting
from benchmarks.harness.workloads import WORKLOADS, competitors_for
from engine.commands.parser import Parser, number, whole

USUAL = ("eager", "careful")
AUTO = f"{ENGINE}auto"
HEAD = """
| work | batch | engine | baseline | engine | baseline | speed-up | middle half |
|---|---|---|---|---|---|---|---|"""


def line(row: Row) -> str:
    """Returns a row of the Markdown table."""
    low, middle, high = row.ratios
    times = f"{row.engine_ms:.3g} ms | {row.baseline_ms:.3g} ms"
    names = f"{row.engine.removeprefix(ENGINE)} | {row.baseline}"
    return f"| {row.work} | {row.batch} | {names} | {times} | **{middle:.2f}x** | {low:.2f} to {high:.2f} |"


def overview(rows: Sequence[Row]) -> str:
    """Returns a table for each engine, of its speed-up over every baseline; bold where the baseline is faster."""
    baselines = sorted({row.baseline for row in rows})
    lines = []
    for engine in dict.fromkeys(row.engine for row in rows):
        found = {(row.work, row.batch, row.baseline): row.ratios[1] for row in rows if row.engine == engine}
        lines += ["", f"| {engine} | batch | {' | '.join(baselines)} |", "|---" * (len(baselines) + 2) + "|"]
        for work, batch in dict.fromkeys((work, batch) for work, batch, _ in found):
            values = [found.get((work, batch, baseline)) for baseline in baselines]
            cells = ["" if value is None else f"{value:.2f}" if value >= 1 else f"**{value:.2f}**" for value in values]
            lines.append(f"| {work} | {batch} | {' | '.join(cells)} |")
    return "\n".join(lines)


def measure(
    competitors: Competitors, works: Sequence[str], batches: Sequence[int], names: Sequence[str], seconds: float
) -> Iterator[Row]:
    """Yields a row for each engine and baseline among `names`, of each workload and batch."""
    model = competitors.bundle.manifest.name
    for work in works:
        chosen = [name for name in competitors_for(work, competitors) if name in names]
        engines = [name for name in chosen if name.startswith(ENGINE)]
        for batch in (batch for batch in batches if batch in WORKLOADS[work].batches):
            times = interleave({name: WORKLOADS[work].task(competitors, name, batch) for name in chosen}, seconds)
            medians = {name: 1000 * statistics.median(taken) for name, taken in times.items()}
            for engine in engines:
                for baseline in (name for name in chosen if name not in engines):
                    yield Row(
                        model=model,
                        work=work,
                        batch=batch,
                        engine=engine,
                        baseline=baseline,
                        engine_ms=medians[engine],
                        baseline_ms=medians[baseline],
                        ratios=ratios(times[engine], times[baseline]),
                        rounds=len(times[engine]),
                    )


def slower_cells(rows: Sequence[Row], kinds: Mapping[str, Kind]) -> list[Row]:
    """Returns, of every workload, batch and engine, the row of the best baseline where it surely beats the engine.

    An exact engine is held against exact baselines, another against all. For sure: in three rounds of four.
    """
    best: dict[tuple[str, int, str], Row] = {}
    for row in rows:
        if kinds[row.engine].exact and not kinds[row.baseline].exact:
            continue
        cell = (row.work, row.batch, row.engine)
        if cell not in best or row.baseline_ms < best[cell].baseline_ms:
            best[cell] = row
    return [row for row in best.values() if row.ratios[2] < 1]


def auto_is_another(competitors: Competitors) -> bool:
    """Whether the engine's own choice differs from fp32 on the CPU."""
    auto = competitors[AUTO]
    return isinstance(auto, Engine) and (auto.captioner.precision, auto.captioner.provider) != ("fp32", "cpu")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line."""
    parser = Parser(prog="python -m benchmarks.ratio", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--grid", action="store_true", help="measure everything, and show where a baseline is faster")
    parser.add_argument("--bundle", type=Path, help="the bundle to measure (default: the one that ships)")
    parser.add_argument("--work", nargs="+", choices=WORKLOADS, metavar="WORK", help="; ".join(WORKLOADS))
    parser.add_argument("--batch", nargs="+", type=int, choices=BATCHES, metavar="N")
    parser.add_argument("--side", nargs="+", metavar="SIDE", help="engine and baselines, by name")
    parser.add_argument(
        "--seconds", type=number(0, above=True), default=3, help="seconds for each competitor in a row (default: 3)"
    )
    parser.add_argument(
        "--threads", type=whole(0), default=0, help="threads of every competitor (default: its own choice)"
    )
    parser.add_argument("--json", type=Path, help="also write the numbers to this file, for benchmarks.compare")
    options = parser.parse_args(arguments)
    batches = options.batch or (BATCHES if options.grid else BATCHES[:-1])
    competitors = Competitors(options.bundle, options.threads, most=max(batches))
    if unknown := set(options.side or ()) - competitors.kinds.keys():
        parser.error(f"unknown competitor {', '.join(sorted(unknown))}: choose from {', '.join(competitors.kinds)}")
    here = setting(competitors.bundle.manifest.name, options.threads)
    print(describe(here), file=sys.stderr)
    names = options.side or [
        name for name in competitors.kinds if options.grid or name.startswith(ENGINE) or name in USUAL
    ]
    if AUTO in names and not options.side and not auto_is_another(competitors):
        names.remove(AUTO)
    print(HEAD)
    rows: list[Row] = []
    for row in measure(competitors, options.work or list(WORKLOADS), batches, names, options.seconds):
        print(line(row), flush=True)
        rows.append(row)
        if options.json:  # what an interrupted run has measured is kept
            Run(here, tuple(rows)).save(options.json)
    if options.grid:
        slower = slower_cells(rows, competitors.kinds)
        print(overview(rows))
        print(f"\nSLOWER than the best baseline, in three rounds of four, at {len(slower)} points")
        print(*([HEAD, *map(line, slower)] if slower else []), sep="\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
