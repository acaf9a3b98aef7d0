"""Compares two saved runs: `python -m benchmarks.compare REFERENCE NEW` exits with 1 if a ratio got worse.

It compares ratios, not times: the competitors of a ratio ran interleaved on one machine, so another or a busy machine
changes them little.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.harness.saved import Run, unlike
from engine.commands.parser import Parser, existing_file, os_reason

MOST_WORSE = 0.15


@dataclass(frozen=True, slots=True)
class Comparison:
    """What changed between two runs; shares are the new ratio over the old one, minus 1, by row."""

    changes: dict[str, float]
    missing: tuple[str, ...]
    unlike: tuple[str, ...]

    @property
    def worse(self) -> dict[str, float]:
        """The rows that worsened beyond what is allowed."""
        return {key: change for key, change in self.changes.items() if change < -MOST_WORSE}

    @property
    def passed(self) -> bool:
        """Nothing worsened, and something was compared."""
        return bool(self.changes) and not self.worse


def compare(reference: Run, new: Run) -> Comparison:
    """Compares the rows that both runs have."""
    old, now = ({row.key: row.ratios[1] for row in run.rows} for run in (reference, new))
    return Comparison(
        {key: now[key] / old[key] - 1 for key in old if key in now},
        tuple(key for key in old if key not in now),
        tuple(unlike(reference.setting, new.setting)),
    )


def report(comparison: Comparison) -> str:
    """Returns a sentence for each row that worsened or is missing, and one for what differs around them."""
    lines = [f"note: the runs differ in {name}" for name in comparison.unlike]
    lines += [f"not measured this time: {key}" for key in comparison.missing]
    lines += [f"WORSE by {-change:.0%}: {key}" for key, change in comparison.worse.items()]
    if not comparison.changes:
        lines.append("FAILED: the runs have no row in common")
    lines.append(f"{len(comparison.changes)} ratios compared, {len(comparison.worse)} worse by over {MOST_WORSE:.0%}")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns 1 when a ratio worsened or nothing could be compared."""
    parser = Parser(prog="python -m benchmarks.compare", description=(__doc__ or "").splitlines()[0])
    saved = existing_file("a file of benchmarks.ratio --json")
    parser.add_argument("reference", type=saved, help="a run saved by `python -m benchmarks.ratio --json`")
    parser.add_argument("new", type=saved, help="a newer run")
    options = parser.parse_args(arguments)
    try:
        comparison = compare(Run.load(options.reference), Run.load(options.new))
    except (OSError, ValueError) as error:
        print(f"error: {os_reason(error) if isinstance(error, OSError) else error}", file=sys.stderr)
        return 2
    print(report(comparison))
    return 0 if comparison.passed else 1


if __name__ == "__main__":
    raise SystemExit(main())
