"""All measurements of a set of captions: scores with intervals, and statistics."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from training.metrics.bootstrap import LEVEL, RESAMPLES, Interval, confidence_intervals
from training.metrics.caption_statistics import Statistics, describe, overuse
from training.metrics.score_file import counts_record
from training.metrics.scores import Scores

OVERUSED = 8  # words that are printed


@dataclass(frozen=True, slots=True)
class Quality:
    """Measured quality of captions. `people` describes the first reference of each image, for comparison."""

    captions: dict[str, str]  # image -> sentence
    references: dict[str, tuple[str, ...]]
    scores: Scores
    intervals: dict[str, Interval]  # of each metric; empty if not requested
    statistics: Statistics
    people: Statistics
    overuse: dict[str, float]  # common word -> how much more often it is in captions than in references
    bootstrap: dict[str, float]  # how the intervals were made

    def record(self) -> dict[str, Any]:
        """Returns the content of scores.json; `captions` and per-image values come last."""
        return {
            "scores": self.scores.values,
            "intervals": {name: [interval.low, interval.high] for name, interval in self.intervals.items()},
            "bootstrap": self.bootstrap,
            "statistics": {"captions": asdict(self.statistics), "people": asdict(self.people)},
            "overuse": {word: round(ratio, 3) for word, ratio in self.overuse.items()},
            "tokeniser": self.scores.tokeniser,
            "notes": self.scores.notes,
            "captions": self.captions,
            "per_image": self.scores.per_image(),
            "counts": counts_record(self.scores.counts),
        }

    def __str__(self) -> str:
        lines = []
        for name, value in self.scores.values.items():
            interval = self.intervals.get(name)
            lines.append(f"{name:8} {value:.4f}" + (f"  {interval.low:.4f} to {interval.high:.4f}" if interval else ""))
        if self.bootstrap:
            lines.append(f"(with {self.bootstrap['level']:.0%} intervals: {self.bootstrap['resamples']:,} resamples)")
        lines.append(f"tokeniser: {self.scores.tokeniser}")
        lines.append(f"{'':24} {'captions':>12} {'people':>12}")
        for (name, ours), (_, theirs) in zip(self.statistics.rows(), self.people.rows(), strict=True):
            lines.append(f"{name:24} {ours:>12} {theirs:>12}")
        most = ", ".join(f"{word} {ratio:.2f}" for word, ratio in [*self.overuse.items()][:OVERUSED])
        lines.append(f"most overused words, and how many times as often as people use them: {most}")
        return "\n".join([*lines, *(f"note: {note}" for note in self.scores.notes)])


def assess(
    captions: Mapping[str, str],
    references: Mapping[str, Sequence[str]],
    training: Iterable[str] | None,
    scores: Scores,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Quality:
    """Measures scored captions; `training` as for caption_statistics; 0 resamples: no intervals."""
    seen = None if training is None else list(training)
    intervals = confidence_intervals(scores.counts, resamples=resamples, seed=seed) if resamples else {}
    return Quality(
        captions=dict(captions),
        references={name: tuple(references[name]) for name in captions},
        scores=scores,
        intervals=intervals,
        statistics=describe(list(captions.values()), seen),
        people=describe([references[name][0] for name in captions], seen),
        overuse=overuse(list(captions.values()), [references[name] for name in captions]),
        bootstrap={"resamples": resamples, "level": LEVEL, "seed": seed} if intervals else {},
    )
