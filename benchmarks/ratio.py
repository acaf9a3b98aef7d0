"""Times the engine and the baselines, interleaved, and prints a Markdown table: `python -m benchmarks.ratio`.

Without a preset it compares the engine in each precision with PyTorch. --targets measures the engine's goals; --grid
measures all workloads, batches and baselines, and marks where the engine is slower than the best of them.
"""

import argparse
import contextlib
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from benchmarks.compare import compare, report
from benchmarks.harness.competitors import BATCHES, ENGINE, Competitors, Engine, Kind
from benchmarks.harness.interleave import interleave
from benchmarks.harness.saved import HISTORY, Outcome, Row, Run, describe, setting
from benchmarks.harness.targets import INCEPTION, SHIPPED, make_row, measure_targets
from benchmarks.harness.workloads import WORKLOADS, competitors_for
from benchmarks.random_bundle import random_bundle

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


def outcome_line(outcome: Outcome) -> str:
    """Returns a row of the table of targets."""
    how = "costs" if outcome.cost else "is faster"
    asked = f"at {'most' if outcome.cost else 'least'} {outcome.asked:g}x"
    verdict = "pass" if outcome.passed else "**fell short**"
    return f"| {outcome.title} | {outcome.engine} | {how} {outcome.reached:.2f}x | {asked} | {verdict} |"


def measure(
    competitors: Competitors, works: Sequence[str], batches: Sequence[int], names: Sequence[str], seconds: float
) -> Iterator[Row]:
    """Yields a row for each engine and baseline among `names`, of each workload and batch."""
    for work in works:
        chosen = [name for name in competitors_for(work, competitors) if name in names]
        engines = [name for name in chosen if name.startswith(ENGINE)]
        for batch in (batch for batch in batches if batch in WORKLOADS[work].batches):
            times = interleave({name: WORKLOADS[work].task(competitors, name, batch) for name in chosen}, seconds)
            for engine in engines:
                for baseline in (name for name in chosen if name not in engines):
                    yield make_row(competitors, work, batch, engine, baseline, times)


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
    """Runs the command line; returns 1 when --compare found a ratio that worsened."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ratio", description=(__doc__ or "").splitlines()[0])
    preset = parser.add_mutually_exclusive_group()
    preset.add_argument("--targets", action="store_true", help="measure the engine's goals")
    preset.add_argument("--grid", action="store_true", help="measure everything, and show where a baseline is faster")
    parser.add_argument("--bundle", type=Path, help="the bundle to measure (default: the one that ships)")
    parser.add_argument("--inception", type=Path, help="an InceptionV3 bundle for --targets (default: make one)")
    parser.add_argument("--work", nargs="+", choices=WORKLOADS, metavar="WORK", help="; ".join(WORKLOADS))
    parser.add_argument("--batch", nargs="+", type=int, choices=BATCHES, metavar="N")
    parser.add_argument("--side", nargs="+", metavar="SIDE", help="engine and baselines, by name")
    parser.add_argument("--auto", default=AUTO, metavar="SIDE", help=f"the inexact column of --targets ({AUTO})")
    parser.add_argument("--seconds", type=float, default=3, help="seconds for each competitor in a row (default: 3)")
    parser.add_argument("--threads", type=int, default=0, help="threads of every competitor (default: its own choice)")
    parser.add_argument("--json", type=Path, help="also write the numbers to this file")
    parser.add_argument("--history", action="store_true", help=f"append the ratios to {HISTORY.name}")
    parser.add_argument("--compare", type=Path, metavar="RUN", help="exit 1 if a ratio is worse than in this saved run")
    options = parser.parse_args(arguments)
    batches = options.batch or (BATCHES if options.grid else BATCHES[:-1])
    competitors = Competitors(options.bundle, options.threads, most=max(batches))
    if unknown := set(options.side or ()) - competitors.kinds.keys():
        parser.error(f"unknown competitor {', '.join(sorted(unknown))}: choose from {', '.join(competitors.kinds)}")
    here = setting(competitors.bundle.manifest.name, options.threads)
    print(describe(here), file=sys.stderr)
    if options.targets:
        run = Run(here, *_targets(competitors, options))
    else:
        print(HEAD)
        names = options.side or [
            name for name in competitors.kinds if options.grid or name.startswith(ENGINE) or name in USUAL
        ]
        if AUTO in names and not options.side and not auto_is_another(competitors):
            names.remove(AUTO)
        rows: list[Row] = []
        for row in measure(competitors, options.work or list(WORKLOADS), batches, names, options.seconds):
            print(line(row), flush=True)
            rows.append(row)
            if options.json:  # what an interrupted run has measured is kept
                Run(here, tuple(rows)).save(options.json)
        run = Run(here, tuple(rows))
        if options.grid:
            _print_slower(slower_cells(rows, competitors.kinds))
    if options.json:
        run.save(options.json)
    if options.history:
        run.append_to()
    if options.compare:
        comparison = compare(Run.load(options.compare), run)
        print(report(comparison))
        return 0 if comparison.passed else 1
    return 0


def _targets(competitors: Competitors, options: argparse.Namespace) -> tuple[tuple[Row, ...], tuple[Outcome, ...]]:
    rows, outcomes = [], []
    with contextlib.ExitStack() as stack:
        bundle = options.inception
        if bundle is None:
            bundle = random_bundle(INCEPTION, Path(stack.enter_context(tempfile.TemporaryDirectory())))
        models = {SHIPPED: competitors, INCEPTION: Competitors(bundle, options.threads, most=8)}
        chosen = competitors[options.auto]
        if isinstance(chosen, Engine):
            print(f"{options.auto}: {chosen.captioner!r}", file=sys.stderr)
        print("| target | engine | reached | asked | |\n|---|---|---|---|---|")
        for row, outcome in measure_targets(models, options.auto, options.seconds):
            print(outcome_line(outcome), flush=True)
            rows.append(row)
            outcomes.append(outcome)
    print(HEAD, *map(line, rows), sep="\n")
    return tuple(rows), tuple(outcomes)


def _print_slower(cells: Sequence[Row]) -> None:
    if not cells:
        print("\nthe engine is nowhere slower than the best baseline")
        return
    print(f"\nSLOWER than the best baseline, in three rounds of four, at {len(cells)} points:", HEAD, sep="\n")
    print(*map(line, cells), sep="\n")


if __name__ == "__main__":
    raise SystemExit(main())
