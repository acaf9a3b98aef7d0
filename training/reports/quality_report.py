"""report.html of an evaluation: figures, a histogram, photographs with captions. Runs no model, reads no folder.

A self-contained page, without scripts.
"""

import html
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from engine.bundle.vocabulary import split
from training.metrics.quality import Quality
from training.reports.histogram import histogram
from training.reports.style import STYLE
from training.reports.thumbnails import picture

SHOWN = "CIDEr", "BLEU-4", "METEOR", "ROUGE-L"  # shown for each photograph
BAR = {"CIDEr": 1.5}  # full length of the bars in the table of scores; 1 for others


@dataclass(frozen=True, slots=True)
class Choice:
    """The images on a page, each list best first or in random order."""

    best: tuple[str, ...]
    drawn: tuple[str, ...]
    worst: tuple[str, ...]

    def all(self) -> list[str]:
        """Returns each image once."""
        return list(dict.fromkeys([*self.best, *self.drawn, *self.worst]))


@dataclass(frozen=True, slots=True)
class Page:
    """The content of a page besides the figures.

    facts: name -> value, under the title. alternatives: image -> other sentences, best first. confidences: image ->
    0 to 1.
    """

    title: str
    facts: Mapping[str, str]
    alternatives: Mapping[str, Sequence[str]] = field(default_factory=dict)
    confidences: Mapping[str, float] = field(default_factory=dict)


def choose(quality: Quality, count: int, *, seed: int = 0, metric: str = "CIDEr") -> Choice:
    """Chooses the `count` best images, as many of the worst, and as many at random."""
    scores = {name: values[metric] for name, values in quality.scores.per_image().items()}
    ranked = sorted(scores, key=lambda name: (-scores[name], name))
    drawn = np.random.default_rng(seed).permutation(sorted(scores))[:count].tolist()
    return Choice(tuple(ranked[:count]), tuple(drawn), tuple(reversed(ranked[-count:])) if count else ())


def write_page(page: Page, quality: Quality, choice: Choice, read: Callable[[str], bytes]) -> str:
    """Returns the page as HTML.

    `read` returns an image's bytes; images that cannot be shown are replaced by their name.
    """
    scores = quality.scores.per_image()

    def figures(names: Sequence[str]) -> str:
        return "\n".join(_figure(name, page, quality, scores[name], picture(name, read)) for name in names)

    facts = "".join(f"<div><dt>{_text(name)}</dt><dd>{_text(value)}</dd></div>" for name, value in page.facts.items())
    notes = "".join(f"<p class=note>{_text(note)}.</p>" for note in quality.scores.notes)
    how = f"The bars end at 1, CIDEr's at 1.5. Tokens: {_text(quality.scores.tokeniser)}."
    if quality.bootstrap:
        how = (
            f"Ranges and bands: {quality.bootstrap['level']:.0%} bootstrap intervals over images, "
            f"{quality.bootstrap['resamples']:,} resamples. {how}"
        )
    cider = np.array([values["CIDEr"] for values in scores.values()])
    sections = [
        ("best", "The best", "The highest CIDEr: the captions at their best.", choice.best),
        ("random", "At random", "Random photographs: what the captions are usually like.", choice.drawn),
        ("worst", "The worst", "The lowest CIDEr: wrong, or right in words that no reference has.", choice.worst),
    ]
    mark = "<mark>Words like this</mark> are in no reference."
    photographs = "\n".join(
        f"<section id={key}><h2>{title}</h2><p class=lead>{lead} {mark}</p>"
        f"<div class=cards>{figures(names)}</div></section>"
        for key, title, lead, names in sections
        if names
    )
    links = "".join(f"<a href=#{key}>{title}</a>" for key, title, _, names in sections if names)
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{_text(page.title)}</title><style>{STYLE}</style></head><body>
<header><h1>{_text(page.title)}</h1><dl class=facts>{facts}</dl><nav>{links}</nav></header>
<main>
<div class=summary>
<section><h2>Scores</h2>{_scores_table(quality)}<p class=small>{how}</p>{notes}</section>
<section><h2>Statistics</h2>{_statistics_table(quality)}
<p class=small>People: the first reference of each photograph, measured the same way.</p></section>
</div>
<section><h2>CIDEr of the photographs</h2>{histogram(cider, "Histogram of CIDEr")}</section>
{photographs}
</main></body></html>
"""


def _scores_table(quality: Quality) -> str:
    rows = []
    for name, value in quality.scores.values.items():
        end, interval = BAR.get(name, 1.0), quality.intervals.get(name)
        place, bracket = _percent(value / end), ""
        bar = f'<i class=fill style="width:{place}"></i><i class=dot style="left:{place}"></i>'
        if interval:
            low, high = interval.low / end, interval.high / end
            bar += f'<i class=band style="left:{_percent(low)};width:{_percent(high - low)}"></i>'
            bracket = f"{interval.low:.3f} – {interval.high:.3f}"
        rows.append(f"<tr><th>{name}<td><b>{value:.3f}</b><td class=range>{bracket}<td><div class=track>{bar}</div>")
    return f"<table class=scores>{''.join(rows)}</table>"


def _statistics_table(quality: Quality) -> str:
    rows = "".join(
        f"<tr><th>{name}<td>{ours}<td>{theirs}"
        for (name, ours), (_, theirs) in zip(quality.statistics.rows(), quality.people.rows(), strict=True)
    )
    return f"<table class=statistics><tr><th><th>captions<th>people{rows}</table>"


def _figure(name: str, page: Page, quality: Quality, scores: Mapping[str, float], photograph: str) -> str:
    said = {word for reference in quality.references[name] for word in split(reference)}
    figures = {metric: f"{scores[metric]:.2f}" for metric in SHOWN if metric in scores}
    if name in page.confidences:
        figures["confidence"] = f"{page.confidences[name]:.0%}"
    rows = "".join(f"<dt>{metric}</dt><dd>{value}</dd>" for metric, value in figures.items())
    references = "".join(f"<li>{_text(reference)}</li>" for reference in quality.references[name])
    others = "".join(f"<li>{_text(other)}</li>" for other in page.alternatives.get(name, ()))
    alternatives = f"<h4>Alternatives</h4><ul class=others>{others}</ul>" if others else ""
    return (
        f"<article><div class=side>{photograph}<dl>{rows}</dl>"
        f"<p class=name>{_text(name)}</p></div><div><h3>{_marked(quality.captions[name], said)}</h3>"
        f"<h4>People wrote</h4><ul>{references}</ul>{alternatives}</div></article>"
    )


def _marked(caption: str, said: set[str]) -> str:
    """Marks the words that no reference has."""
    words = [
        _text(word) if all(part in said for part in split(word)) else f"<mark>{_text(word)}</mark>"
        for word in caption.split()
    ]
    return " ".join(words) or "<mark>(nothing)</mark>"


def _percent(share: float) -> str:
    return f"{min(1.0, max(0.0, share)):.2%}"


def _text(value: str) -> str:
    return html.escape(value)
