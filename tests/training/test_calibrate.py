"""Laws of the calibration command, on a captioner whose captions are good as often as its log-probabilities say."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from engine import Beam, Caption, Greedy, Hypothesis, ImageError, Sample
from engine.confidence import check_confidence, confidence
from engine.options import Decoding
from tests.training.shapes import captions, draw_data
from training import calibrate
from training.calibrate import calibrate as fit_and_measure
from training.calibrate import main
from training.confidence import reliability
from training.confidence.scored_captions import ScoredCaptions, ciders, human_ciders

IMAGES = 160
TRUTH = {"intercept": 3.0, "mean": 2.0}
BAD = "two zebras"


class Knowing:
    """Says what is right with the probability that TRUTH makes of the log-probabilities it gives, or never."""

    never = False

    def __init__(self, bundle: Path | None, *, provider: str, precision: str) -> None:
        self.precision = precision
        self.bundle = SimpleNamespace(manifest=SimpleNamespace(name="knowing"), precisions=("fp32", "int8"))

    def encode(self, batch: Iterable[bytes]) -> np.ndarray:
        contents = list(batch)
        for entry, content in enumerate(contents):
            if not content:
                raise ImageError("it is empty", source="0 bytes", entry=entry)
        return np.arange(len(contents), dtype=np.float32)[:, None]

    def caption_features(self, features: np.ndarray, decoding: Decoding) -> list[Caption]:
        generator = np.random.default_rng([Beam, Greedy, Sample].index(type(decoding)))
        found = []
        for image in range(len(features)):
            log_probs = tuple((-generator.exponential(1.5, size=4)).tolist())
            right = not self.never and generator.random() < confidence(log_probs, TRUTH)
            colour, shape = ("red", "green", "blue", "yellow")[image % 4], ("circle", "square")[image // 4 % 2]
            text = captions(colour, shape)[0] if right else BAD
            found.append(Caption.best_of([Hypothesis(text, sum(log_probs), sum(log_probs), (), log_probs, True)]))
        return found


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return draw_data(tmp_path / "data", train=0, validation=IMAGES)


@pytest.fixture
def command(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    monkeypatch.setattr(calibrate, "Captioner", Knowing)
    monkeypatch.setattr(reliability, "RESAMPLES", 50)
    monkeypatch.setenv("PATH", "")  # without Java: fast
    return lambda *more: main(["--data", str(data), "--output", str(tmp_path / "confidence.json"), *more])


def test_what_is_written_is_what_the_engine_takes_and_is_as_often_right_as_it_says(
    command: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command("--plot", str(tmp_path / "plot.png"), "--features", "mean,length") == 0
    written: dict[str, Any] = json.loads((tmp_path / "confidence.json").read_text())
    coefficients = written["coefficients"]
    assert check_confidence(coefficients) == []
    assert coefficients.keys() == {"threshold", "intercept", "mean", "length"}
    assert coefficients["mean"] == pytest.approx(TRUTH["mean"], abs=0.8)
    assert coefficients["length"] == 0, "all captions have the same"
    found = written["cross_validated"]
    assert found["captions"] == IMAGES
    assert found["confidence"] == pytest.approx(found["good"], abs=0.03)
    assert found["calibration_error"] < 2 * found["by_chance"]
    assert found["area"] > 0.7
    assert found["rank_interval"][0] > 0.2
    assert (written["bundle"], written["split"]) == ("knowing", "val")
    ways = ["beam", "greedy", "sampling, temperature 0.5", "sampling"]
    assert list(written["elsewhere"]) == [f"{precision} {way}" for precision in ("fp32", "int8") for way in ways]
    assert written["elsewhere"]["fp32 beam"] == written["elsewhere"]["int8 beam"] == found
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")
    said = capsys.readouterr()
    assert "rank correlation of confidence and CIDEr 0." in said.out
    assert "without Java" in said.err


def test_several_sets_are_fitted_together_and_measured_apart(
    command: Callable[..., int], data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = draw_data(tmp_path / "other", train=0, validation=96)
    found = {}
    for name, more in (("alone", []), ("both", ["--data", str(other)])):
        assert command(*more, "--plot", str(tmp_path / f"{name}.png"), "--output", str(tmp_path / name)) == 0
        found[name] = json.loads((tmp_path / name).read_text())
    alone, both = found["alone"], found["both"]
    assert (alone["data"], alone["apart"]) == ("data", {})
    assert (both["data"], list(both["apart"])) == ("data, other", ["data", "other"])
    data_apart, other_apart = both["apart"].values()
    assert (data_apart["captions"], other_apart["captions"]) == (IMAGES, 96)
    assert data_apart["cider"] == alone["cross_validated"]["cider"], "a CIDEr does not hang on the set beside"
    together = both["cross_validated"]
    assert together["captions"] == IMAGES + 96
    assert together["cider"] == pytest.approx(
        (IMAGES * data_apart["cider"] + 96 * other_apart["cider"]) / (IMAGES + 96), abs=1e-3
    )
    for one in (together, data_apart, other_apart):
        assert (one["kept"][0]["least"], one["kept"][0]["share"]) == (0.0, 1.0)
        assert one["kept"][0]["cider"] == one["cider"]
    assert "good  CIDEr  other" in capsys.readouterr().out
    assert (tmp_path / "both.png").read_bytes() != (tmp_path / "alone.png").read_bytes()


@pytest.mark.parametrize(("shift", "least", "most"), [(0.0, 0.0, 0.05), (1.0, 0.1, 0.4)])
def test_apart_one_sees_whether_the_confidence_holds_on_each_set(shift: float, least: float, most: float) -> None:
    def scored(seed: int, shift: float) -> ScoredCaptions:
        generator = np.random.default_rng(seed)
        rows = [tuple((-generator.exponential(1.5, size=4)).tolist()) for _ in range(1500)]
        chances = [confidence(row, TRUTH | {"intercept": TRUTH["intercept"] + shift}) for row in rows]
        return ScoredCaptions(rows, np.where(generator.random(1500) < chances, 1.0, 0.1))

    sets = {"easy": scored(0, shift), "hard": scored(1, -shift)}
    calibration = fit_and_measure({"fp32 beam": sets}, 0.5, ("mean",))
    assert calibration.found.calibration_error < 0.05
    for one in calibration.apart.values():
        assert least <= one.calibration_error <= most
    easy, hard = calibration.apart.values()
    assert shift == 0 or (easy.confidence < easy.good and hard.confidence > hard.good)


def test_a_caption_is_good_from_the_cider_that_the_asked_share_of_people_miss(
    command: Callable[..., int], tmp_path: Path
) -> None:
    thresholds = []
    for quantile in ("0.2", "0.9"):
        command("--quantile", quantile)
        thresholds.append(json.loads((tmp_path / "confidence.json").read_text())["coefficients"]["threshold"])
    assert thresholds == sorted(thresholds)
    assert thresholds[0] < thresholds[-1]


def test_people_are_measured_against_the_others_of_their_image() -> None:
    references = {"a": ["a red dog", "a red dog", "two cats"], "b": ["some grass"], "c": ["a tree", "one tree here"]}
    found = human_ciders(references)
    assert len(found) == 5  # b has nobody to compare with
    rest = {"a": references["a"][1:], "c": references["c"][1:]}
    assert found[:2] == pytest.approx(ciders(rest, {"a": ["a red dog"], "c": ["a tree"]}))
    assert found[0] > found[4]


def test_captions_of_one_kind_only_are_one_sentence(
    command: Callable[..., int],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Knowing, "never", True)
    assert command() == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith(f"error: 0 of {IMAGES} captions are good")
    assert error.endswith("use more images or another --quantile")
    assert not (tmp_path / "confidence.json").exists()


def test_a_photograph_that_cannot_be_read_is_named(
    command: Callable[..., int], data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (data / "images" / "17.jpg").write_bytes(b"")
    assert command() == 1
    assert capsys.readouterr().err.splitlines()[-1].startswith("error: 17.jpg cannot be read (it is empty)")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--quantile", "1"], "--quantile must be between 0 and 1"),
        (["--features", "mean,colour"], "unknown --features colour: choose from mean, per_root_length"),
        (["--plot", "nowhere/plot.png"], "nowhere/plot.png cannot be written"),
    ],
)
def test_wrong_usage_is_told_before_any_work(
    arguments: list[str], sentence: str, command: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        command(*arguments)
    assert sentence in capsys.readouterr().err
