"""The picture command: every photograph that all files have a caption for is drawn, and no word is cut."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from training.contact_sheet import FONTS, SIZE, lines, main, read_captions

COLOURS = {"000000000025.jpg": (200, 30, 30), "b.jpg": (30, 160, 30), "c.jpg": (30, 30, 200)}


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    for name, colour in COLOURS.items():
        Image.new("RGB", SIZE, colour).save(folder / name, quality=95)
    return folder


@pytest.fixture
def spoken(tmp_path: Path) -> Path:
    """Lines as `engine caption --json` prints them."""
    rows = [
        {"image": f"photos/{name}", "text": f"a photograph of {name}", "confidence": 0.5, "score": -1.0}
        for name in COLOURS
    ]
    path = tmp_path / "lines.jsonl"
    failed = {"image": "broken.jpg", "error": "not an image"}
    path.write_text("".join(json.dumps(row) + "\n" for row in [*rows, failed]))
    return path


@pytest.fixture
def scored(tmp_path: Path) -> Path:
    """A file as `training.evaluate --results-out` writes it, without the last photograph."""
    path = tmp_path / "results.json"
    path.write_text(json.dumps([{"image_id": 25, "caption": "a tree"}, {"image_id": "b.jpg", "caption": "a dog"}]))
    return path


def drawn(sheet: Path) -> set[str]:
    """The names of the photographs whose colour is in a sheet."""
    pixels = np.asarray(Image.open(sheet).convert("RGB")).astype(int)
    return {name for name, colour in COLOURS.items() if (abs(pixels - colour).max(axis=2) < 4).sum() >= SIZE[0] * 200}


def run(*arguments: object) -> int:
    return main([str(argument) for argument in arguments])


@pytest.mark.parametrize("columns", [1, 2, 4])
def test_every_photograph_with_a_caption_is_drawn(images: Path, spoken: Path, columns: int) -> None:
    sheet = images.parent / "sheet.png"
    assert run(spoken, "--images", images, "--output", sheet, "--columns", columns) == 0
    assert drawn(sheet) == set(COLOURS)


def test_of_two_files_come_the_photographs_that_both_have(images: Path, spoken: Path, scored: Path) -> None:
    sheet = images.parent / "sheet.png"
    assert run(spoken, scored, "--images", images, "--output", sheet) == 0
    assert drawn(sheet) == set(COLOURS) - {"c.jpg"}


def test_both_kinds_of_files_are_read(spoken: Path, scored: Path) -> None:
    assert read_captions(spoken)["b.jpg"] == ("a photograph of b.jpg", 0.5)
    assert list(read_captions(spoken)) == [25, "b.jpg", "c.jpg"]
    caption, confidence = read_captions(scored)[25]
    assert caption == "a tree"
    assert math.isnan(confidence)


@pytest.mark.parametrize("newest", [True, False])
def test_lines_hold_all_words_and_fit_below_the_photograph(newest: bool) -> None:
    said = "a man in a red shirt is holding a very long umbrella beside an extraordinarily large elephant"
    *text, (confidence, _) = lines((said, 0.256), newest)
    assert confidence == "confidence 0.26"
    assert " ".join(line for line, _ in text) == said
    assert all(FONTS[colour].getlength(line) <= SIZE[0] for line, colour in text)


@pytest.mark.parametrize("content", ["", "[1]", "{", '{"text": "no image"}', '[{"image_id": 1}]', '{"captions": []}'])
def test_a_file_of_another_kind_is_one_sentence(content: str, images: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = images.parent / "other.json"
    path.write_text(content)
    assert run(path, "--images", images, "--output", images.parent / "sheet.jpg") == 1
    assert capsys.readouterr().err.startswith("error: ")
    assert not (images.parent / "sheet.jpg").exists()


def test_what_is_not_there_is_named_with_what_it_has_to_be(
    images: Path, spoken: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for arguments, sentence in (
        (("none.json", "--images", images), "captions must be lines of `engine caption --json`, or a file of"),
        ((spoken, "--images", "none"), "--images must be a folder of photographs, but there is no folder none"),
        ((spoken, "--images", spoken), f"--images must be a folder of photographs, but {spoken} is no folder"),
        ((spoken, "--images", images, "--columns", 11), "--columns must be from 1 to 10, but it is 11"),
    ):
        with pytest.raises(SystemExit) as stop:
            run(*arguments, "--output", images.parent / "sheet.jpg")
        assert stop.value.code == 2
        assert capsys.readouterr().err.startswith(f"error: {sentence}")
