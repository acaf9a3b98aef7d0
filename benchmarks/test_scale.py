"""A short run of the curves, and the laws of what is said about them."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.other_vocabulary import write_other_vocabulary
from benchmarks.scale import CURVES, SHORT, main
from benchmarks.scale_charts import explain
from benchmarks.scale_points import Point
from engine import Beam, Captioner, Greedy
from engine.bundle.bundle import Bundle

POINT = Point(curve="beam", line="search", precision="fp32", x=1, rate=1, p50=1, p99=1)


def test_every_curve_is_measured_explained_and_drawn(
    bundle: Path | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    short = ["--short", "--seconds", "0.01", "--rounds", "1", "--precision", "fp32"]
    named = [] if bundle is None else ["--bundle", str(bundle)]
    assert main([*short, *named, "--json", str(tmp_path / "points.json"), "--charts", str(tmp_path)]) == 0
    points = [Point(**fields) for fields in json.loads((tmp_path / "points.json").read_text())["points"]]
    for curve, where in CURVES.items():
        assert {point.x for point in points if point.curve == curve} == {*where[:SHORT]}
        assert (tmp_path / f"scale-{curve}.png").stat().st_size > 0
    assert all(point.rate > 0 and 0 < point.p50 <= point.p99 and point.peak > 30 for point in points)
    assert capsys.readouterr().out.count("fp32: ") == len(CURVES)


def test_costs_that_are_a_line_are_told_exactly() -> None:
    def line(name: str, milliseconds: float, each: float) -> list[Point]:
        times = {x: milliseconds + each * x for x in (1, 2, 5, 10)}
        return [replace(POINT, line=name, x=x, rate=32_000 / time, p50=time) for x, time in times.items()]

    points = [*line("search", 6, 2), *line("JPEG to features", 100, 0), *line("JPEG to caption", 106, 2)]
    said = explain("beam", points, 2)
    assert "takes 6.0 ms and 2.0 ms for each beam" in said
    assert "beam 5 costs 1.07 times beam 1" in said
    words = [replace(point, curve="vocabulary", x=1000 * point.x) for point in line("greedy", 6, 2)]
    assert "as much at 3,000 words" in explain("vocabulary", words, 2)


def test_another_vocabulary_has_its_size_and_sentences_of_the_greatest_length(
    bundle: Path | None, tmp_path: Path
) -> None:
    there = Bundle.load(bundle)
    write_other_vocabulary(there, 700, tmp_path / "other")
    captioner = Captioner(tmp_path / "other", provider="cpu", precision="fp32")
    assert len(captioner.bundle.vocabulary) == 700
    features = np.abs(np.random.default_rng(0).normal(size=(3, there.manifest.feature_size))).astype(np.float32)
    for way in (Greedy(), Beam(beam_size=2)):
        captions = captioner.caption_features(features, way)
        assert {len(caption.tokens) for caption in captions} == {there.manifest.defaults.max_length}
