"""The page of an evaluation: what it shows, and that nothing is outside it."""

import re
from html.parser import HTMLParser
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from tests.training.scored import make_captions
from training.metrics.quality import Quality, assess
from training.metrics.scores import score_captions
from training.reports.histogram import histogram
from training.reports.quality_report import Page, choose, write_page

PHOTOGRAPH = BytesIO()
Image.new("RGB", (64, 48), "teal").save(PHOTOGRAPH, "JPEG")


def read(name: str) -> bytes:
    return PHOTOGRAPH.getvalue()


@pytest.fixture
def quality(monkeypatch: pytest.MonkeyPatch) -> Quality:
    monkeypatch.setenv("PATH", "")
    references, captions = make_captions(30)
    captions["001.jpg"] = 'a <dog> & a "zebra"'
    return assess(captions, references, ["a dog"], score_captions(references, captions), resamples=50)


class Tags(HTMLParser):
    """Collects addresses and open tags."""

    def __init__(self) -> None:
        super().__init__()
        self.sources: list[str] = []
        self.names: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)
        self.sources += [value or "" for name, value in attrs if name in ("src", "href")]


def test_the_best_and_the_worst_are_those_by_cider(quality: Quality) -> None:
    scores = {name: values["CIDEr"] for name, values in quality.scores.per_image().items()}
    choice = choose(quality, 5)
    assert [scores[name] for name in choice.best] == sorted(scores.values(), reverse=True)[:5]
    assert [scores[name] for name in choice.worst] == sorted(scores.values())[:5]
    assert len(set(choice.drawn)) == 5
    assert choose(quality, 5).drawn == choice.drawn != choose(quality, 5, seed=1).drawn
    assert len(choose(quality, 100).best) == 30


def test_the_page_shows_every_chosen_photograph_and_nothing_from_outside(quality: Quality) -> None:
    choice = choose(quality, 4)
    text = write_page(Page("Title", {"Data": "made"}), quality, choice, read)
    tags = Tags()
    tags.feed(text)
    pictures = [source for source in tags.sources if source.startswith("data:image/jpeg")]
    assert len(pictures) == 12
    assert {source for source in tags.sources if not source.startswith("data:")} == {"#best", "#random", "#worst"}
    assert "script" not in tags.names
    assert "url(" not in text
    for name in choice.all():
        assert name in text
        for reference in quality.references[name]:
            assert reference in text
    for metric, interval in quality.intervals.items():
        assert f"<th>{metric}<td><b>{quality.scores.values[metric]:.3f}</b>" in text
        assert f"{interval.low:.3f} – {interval.high:.3f}" in text


def test_captions_are_escaped_and_their_own_words_marked(quality: Quality) -> None:
    choice = choose(quality, 30)
    text = write_page(Page("a < b", {}), quality, choice, read)
    assert "<title>a &lt; b</title>" in text
    assert "<mark>&quot;zebra&quot;</mark>" in text
    assert "<dog>" not in text
    said = {word for reference in quality.references["002.jpg"] for word in reference.split()}
    marked = re.findall(r"<mark>(\w+)</mark>", text.split('alt="002.jpg"')[1].split("</h3>")[0])
    assert marked == [word for word in quality.captions["002.jpg"].split() if word not in said]


def test_alternatives_and_confidences_stand_beside_their_photograph(quality: Quality) -> None:
    page = Page("Title", {}, {"003.jpg": ["another <way>", "a third"]}, {"003.jpg": 0.73})
    text = write_page(page, quality, choose(quality, 30), read)
    figure = text.split('alt="003.jpg"')[1].split("</article>")[0]
    assert "<li>another &lt;way&gt;</li><li>a third</li>" in figure
    assert "<dt>confidence</dt><dd>73%</dd>" in figure
    assert "<h4>Alternatives</h4>" not in text.split('alt="004.jpg"')[1].split("</article>")[0]


@pytest.mark.parametrize("values", [np.zeros(1), np.linspace(0, 12, 100), np.random.default_rng(0).random(1000)])
def test_the_histogram_counts_every_photograph(values: np.ndarray) -> None:
    drawn = histogram(values, "CIDEr")
    assert sum(int(count.replace(",", "")) for count in re.findall(r": ([\d,]+) photographs", drawn)) == len(values)
    assert f"mean {values.mean():.2f}" in drawn
