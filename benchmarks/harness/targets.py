"""The engine's goals relative to the baselines, and how each is measured. Prints nothing.

The exact engine is REFERENCE; the other column is the competitor that the caller names, "engine auto" or a precision.
"""

import statistics
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from benchmarks.harness.competitors import REFERENCE, Competitors
from benchmarks.harness.interleave import interleave, ratios
from benchmarks.harness.saved import Outcome, Row
from benchmarks.harness.workloads import WORKLOADS

SHIPPED, INCEPTION = "shipped", "inception_v3"
RANDOM = "engine int8"
"""Used instead of auto for random weights, because auto chooses by CIDEr, which their captions do not have."""


@dataclass(frozen=True, slots=True)
class Target:
    """A goal: the least speed-up over a baseline, or the highest cost of one workload relative to another.

    against: a baseline's name, or for a cost the engine's own other work. exact, auto: what is asked of each column.
    """

    title: str
    work: str
    batch: int
    against: str
    exact: float
    auto: float
    model: str = SHIPPED


TARGETS = (
    Target("one photograph, greedy, end to end", "end to end, greedy", 1, "eager", 4, 6),
    Target("batch 32, beam 3, images per second", "end to end, beam 3", 32, "eager", 4.5, 9),
    Target("beam 5 over greedy, end to end, batch 32", "end to end, beam 5", 32, "end to end, greedy", 1.4, 1.5),
    Target("InceptionV3 encoder alone, batch 8", "encoder", 8, "eager", 1.5, 5, INCEPTION),
    Target("decode alone over session.run and numpy, beam 3, batch 32", "beam 3", 32, "onnxruntime", 2, 2.5),
)


def measure_targets(models: Mapping[str, Competitors], auto: str, seconds: float) -> Iterator[tuple[Row, Outcome]]:
    """Measures every target of the models that are given, each in both columns."""
    for target in TARGETS:
        if target.model in models:
            competitors = models[target.model]
            column = {REFERENCE: target.exact}
            inexact = auto if target.model == SHIPPED else RANDOM
            if inexact in competitors.kinds:
                column[inexact] = target.auto
            yield from _measure(target, competitors, column, seconds)


def _measure(
    target: Target, competitors: Competitors, asked: Mapping[str, float], seconds: float
) -> Iterator[tuple[Row, Outcome]]:
    work, cost = WORKLOADS[target.work], target.against in WORKLOADS
    tasks = {name: work.task(competitors, name, target.batch) for name in asked}
    if cost:
        others = {name: f"{name}, {target.against}" for name in asked}
        tasks |= {others[name]: WORKLOADS[target.against].task(competitors, name, target.batch) for name in asked}
    else:
        others = dict.fromkeys(asked, target.against)
        tasks[target.against] = work.task(competitors, target.against, target.batch)
    times = interleave(tasks, seconds)
    for name, least in asked.items():
        row = make_row(competitors, target.work, target.batch, name, others[name], times)
        reached = 1 / row.ratios[1] if cost else row.ratios[1]
        yield row, Outcome(target.title, name, others[name], least, reached, cost)


def make_row(
    competitors: Competitors, work: str, batch: int, engine: str, baseline: str, times: Mapping[str, list[float]]
) -> Row:
    """Sums up the rounds of two competitors."""
    engine_ms, baseline_ms = (1000 * statistics.median(times[name]) for name in (engine, baseline))
    pairs = ratios(times[engine], times[baseline])
    model = competitors.bundle.manifest.name
    return Row(model, work, batch, engine, baseline, engine_ms, baseline_ms, pairs, len(times[engine]))
