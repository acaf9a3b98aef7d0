"""Resize rules compared: photographs of usual shapes, each rule against squash, photograph by photograph."""

import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from engine import Beam, Captioner
from engine.bundle.manifest import ImageSpec
from export.additions import amend
from training.compare_resizing import SHAPES, looks, main, stretched, two_crops
from training.data.datasets import open_dataset
from training.metrics import tokens
from training.metrics.java import MetricsError
from training.metrics.scores import score_captions

SPEC = ImageSpec(40, 40, (127.0,) * 3, (128.0,) * 3)


def test_a_photograph_is_stretched_to_a_jpeg_file_of_the_shape(drawn_data: Path) -> None:
    dataset = open_dataset(drawn_data, "val")
    name = dataset.examples[0].name
    for shape in SHAPES:
        image = Image.open(io.BytesIO(stretched(dataset, name, shape)))
        assert (image.format, image.size) == ("JPEG", shape)
        again = np.asarray(image.resize((96, 96))).astype(int)
        assert np.abs(again - np.asarray(Image.open(io.BytesIO(dataset.read(name))))).mean() < 3


def test_two_crops_are_the_ends_of_the_longer_side() -> None:
    for size, far in (((160, 40), (120, 0, 160, 40)), ((40, 100), (0, 60, 40, 100)), ((40, 40), (0, 0, 40, 40))):
        y, x = np.mgrid[: size[1], : size[0]]
        file = io.BytesIO()
        image = Image.fromarray(np.stack([x, y, x * y % 256], axis=-1).astype(np.uint8))
        image.save(file, "PNG")
        first, second = two_crops(file.getvalue(), SPEC)
        np.testing.assert_array_equal(first, np.asarray(image.crop((0, 0, 40, 40))))
        np.testing.assert_array_equal(second, np.asarray(image.crop(far)))


def test_the_command_scores_what_bundles_of_each_rule_say(
    tiny_captioner: Captioner,
    drawn_data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def no_java() -> str:
        raise MetricsError("it takes long")

    monkeypatch.setattr(tokens, "find_java", no_java)
    output, bundle = tmp_path / "resizing.json", tiny_captioner.bundle.path
    arguments = ["--bundle", str(bundle), "--data", str(drawn_data), "--limit", "9", "--output", str(output)]
    assert main(arguments) == 0
    record, printed = json.loads(output.read_text()), capsys.readouterr().out.splitlines()
    assert (record["images"], record["data"], record["split"]) == (9, "data", "val")
    found = {(one["shape"], one["look"]): one for one in record["cider"]}
    assert len(found) == len(printed) - 3 == (len(SHAPES) + 1) * len(looks(SPEC))

    dataset = open_dataset(drawn_data, "val")
    examples = dataset.examples[:9]
    references = {example.name: example.captions for example in examples}
    copy = Path(shutil.copytree(bundle, tmp_path / "bundle"))
    for rule in ("squash", "crop", "letterbox"):
        amend(copy, resize=rule)
        captioner = Captioner(copy, provider="cpu", precision="fp32")
        for width, height in SHAPES:
            files = [stretched(dataset, name, (width, height)) for name in references]
            said = [caption.text for caption in captioner.caption(files, Beam())]
            scores = score_captions(references, dict(zip(references, said, strict=True)))
            assert found[f"{width} x {height}", rule]["second"] == pytest.approx(scores.cider, abs=1e-9)
    for (shape, look), one in found.items():
        assert one["first"] == found[shape, "squash"]["second"]
        assert one["interval"]["low"] <= one["second"] - one["first"] + 1e-9
        assert one["interval"]["high"] >= one["second"] - one["first"] - 1e-9
        if shape == "all":
            each = [found[f"{width} x {height}", look]["second"] for width, height in SHAPES]
            assert one["second"] == pytest.approx(np.mean(each))


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--limit", "0"], "--limit must be at least 1, but it is 0"),
        (["--output", "nowhere/resizing.json"], "--output nowhere/resizing.json cannot be written"),
    ],
)
def test_what_makes_no_sense_is_refused_before_any_work(
    arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["--data", "nowhere", *arguments])
    assert sentence in capsys.readouterr().err.splitlines()[-1]


def test_what_cannot_be_measured_is_one_sentence(
    tiny_captioner: Captioner, drawn_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = Path(shutil.copytree(drawn_data, tmp_path / "data"))
    name = open_dataset(data, "val").examples[1].name
    (data / "images" / name).write_bytes(b"no photograph")
    for folder, sentence in ((tmp_path / "none", "no such folder"), (data, f"{name} cannot be read: leave it out")):
        arguments = ["--bundle", str(tiny_captioner.bundle.path), "--data", str(folder)]
        assert main([*arguments, "--output", str(tmp_path / "resizing.json")]) == 1
        error = capsys.readouterr().err.splitlines()
        assert error[-1].startswith("error: ")
        assert sentence in error[-1]
    assert not (tmp_path / "resizing.json").exists()
