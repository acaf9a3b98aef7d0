"""Tuning: what is recommended reads well, and the figures are those of the captions."""

import json
from pathlib import Path

import pytest

from engine import Captioner
from training.data.datasets import open_dataset
from training.metrics.scores import score_captions
from training.tune_decoding import Setting, find_bad_endings, main, recommend, settings

ENDINGS = ("a", "the")


def test_bad_endings_are_common_words_that_people_do_not_end_with() -> None:
    captions = ["a dog on the grass"] * 600 + ["the dog looks on", "a rare word", "the dog is seen by a"]
    found = find_bad_endings(iter(captions))
    assert set(found) == {"a", "dog", "on", "the"}, "on ends 1 of 601, a 1 of 602; grass ends 600; the rest is rare"
    assert "on" not in find_bad_endings(iter([*captions, "a dog is put on"])), "2 of 602 are too many"


def test_the_grid_varies_no_penalty_for_a_beam_of_one() -> None:
    grid = settings((1, 3), (0.0, 1.0), (0, 3))
    assert len(grid) == len({*grid}) == 2 + 4


def test_the_narrowest_beam_near_the_best_is_recommended_of_those_that_read_well() -> None:
    best = Setting(5, 1.0, 3, ENDINGS, cider=0.5)
    near = Setting(3, 1.0, 3, ENDINGS, cider=0.499)
    badly = [
        Setting(1, 1.0, 0, (), cider=0.6),
        Setting(2, 1.0, 0, ENDINGS, cider=0.6),
        Setting(2, 1.0, 3, (), cider=0.6),
    ]
    assert recommend([best, near, *badly]) is near
    assert recommend([best, Setting(1, 1.0, 3, ENDINGS, cider=0.49), *badly]) is best
    assert recommend(badly[:1]) is badly[0], "the grid holds nothing else"


def test_the_command_scores_what_the_engine_says(
    tiny_captioner: Captioner, drawn_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output, bundle = tmp_path / "tuned.json", tiny_captioner.bundle.path
    grid = ["--beams", "1,2", "--penalties", "0.5", "--repeats", "0,1", "--bad-endings", "circle,paper"]
    assert main(["--bundle", str(bundle), "--data", str(drawn_data), "--output", str(output), *grid]) == 0
    tuned, printed = json.loads(output.read_text()), capsys.readouterr().out
    assert len(tuned["settings"]) == 8
    assert printed.count("<- recommended") == 1
    assert f"--beam-size {tuned['recommended']['beam_size']} " in printed
    assert tuned["recommended"]["bad_endings"] == ["circle", "paper"]
    assert all(one["open"] == 0 for one in tuned["settings"] if one["bad_endings"])
    dataset = open_dataset(drawn_data, "val")
    one = next(Setting(**one | {"bad_endings": ("circle", "paper")}) for one in tuned["settings"] if one["bad_endings"])
    captions = tiny_captioner.caption([dataset.read(example.name) for example in dataset.examples], one.decoding())
    said = {example.name: caption.text for example, caption in zip(dataset.examples, captions, strict=True)}
    scores = score_captions({example.name: example.captions for example in dataset.examples}, said).values
    assert one.cider == pytest.approx(scores["CIDEr"], abs=1e-4)
    assert one.bleu_4 == pytest.approx(scores["BLEU-4"], abs=1e-4)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            ["--penalties", "", "--beams", "3"],
            "--penalties must be numbers with commas between them, but there is none",
        ),
        (["--beams", "x"], "--beams must be a whole number, but it is 'x'"),
        (["--repeats", "2.5"], "--repeats must be a whole number, but it is '2.5'"),
        (["--beams", "3,0"], "--beams must be at least 1, but it is 0"),
        (["--penalties", "-1"], "--penalties must be from 0 to 10, but it is -1"),
        (["--penalties", "nan", "--beams", "3"], "--penalties must be a number, but it is 'nan'"),
        (["--repeats", "-2"], "--repeats must be at least 0, but it is -2"),
        (["--output", "nowhere/tuned.json"], "--output nowhere/tuned.json cannot be written"),
    ],
)
def test_a_grid_that_makes_no_sense_is_refused_before_any_work(
    arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["--data", "nowhere", *arguments])
    assert sentence in capsys.readouterr().err.splitlines()[-1]


def test_what_cannot_be_tuned_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--data", str(tmp_path / "none"), "--output", str(tmp_path / "tuned.json")]) == 1
    assert capsys.readouterr().err.count("\n") == 1
