"""The command: its messages and exit codes."""

import json
from pathlib import Path

import pytest

from engine.bundle.bundle import Bundle
from export.to_onnx import main

CALIBRATED = {"threshold": 0.65, "intercept": 3.0, "mean": 1.5}


def test_the_command_prints_the_checks_and_writes_the_bundle(
    quick: pytest.MonkeyPatch, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "bundle"
    assert main(["--checkpoint", str(run), "--output", str(output), "--beam-size", "2", "--name", "shapes"]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].split() == ["check", "batch", "sizes", "max", "error", "tolerance"]
    assert sum(line.endswith(" ok") for line in printed) == 11
    assert printed[-1] == f"wrote {output}"
    assert Bundle.load(output).manifest.defaults.beam_size == 2

    (tmp_path / "scores.json").write_text('{"bleu_4": 17.5, "per_image": {"a": {"CIDEr": 1}}, "captions": {"a": "b"}}')
    assert main(["--output", str(output), "--quality", str(tmp_path / "scores.json")]) == 0
    assert Bundle.load(output).manifest.quality == {"bleu_4": 17.5}

    both = []
    for name in ("ours", "theirs"):
        (tmp_path / f"{name}.json").write_text(json.dumps({"data": name, "scores": {"CIDEr": 0.5}, "captions": {}}))
        both += ["--quality", str(tmp_path / f"{name}.json")]
    assert main(["--output", str(output), *both]) == 0
    quality = Bundle.load(output).manifest.quality
    assert quality == {name: {"data": name, "scores": {"CIDEr": 0.5}} for name in ("ours", "theirs")}
    assert main(["--output", str(output), *both[:2], *both[:2]]) == 1, "two of one name"

    said = ["--no-repeat-ngram-size", "3", "--bad-endings", "a,of"]
    assert main(["--output", str(output), *said]) == 0
    defaults = Bundle.load(output).manifest.defaults
    assert (defaults.beam_size, defaults.no_repeat_ngram_size, defaults.bad_endings) == (2, 3, ("a", "of"))
    assert main(["--output", str(output), "--bad-endings", ""]) == 0
    assert Bundle.load(output).manifest.defaults.bad_endings == ()

    capsys.readouterr()
    assert main(["--output", str(output), "--resize", "crop"]) == 0
    assert Bundle.load(output).manifest.image.resize == "crop"
    assert Bundle.load(output).manifest.quality == {}
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == f"set resize='crop' in {output}"
    assert printed[1].startswith("measurements with the old settings were removed")

    (tmp_path / "confidence.json").write_text(json.dumps({"coefficients": CALIBRATED, "good": "so and so"}))
    assert main(["--output", str(output), "--confidence", str(tmp_path / "confidence.json")]) == 0
    assert Bundle.load(output).manifest.confidence == CALIBRATED


def test_every_refusal_is_one_sentence_and_exit_code_1(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    existing, new = tmp_path / "existing", tmp_path / "new"
    existing.mkdir()
    (tmp_path / "list.json").write_text(json.dumps([1]))
    (tmp_path / "words.json").write_text(json.dumps({"coefficients": CALIBRATED | {"words": 1}}))
    (tmp_path / "text.json").write_text(json.dumps({"coefficients": CALIBRATED | {"mean": "1"}}))
    (tmp_path / "none.json").write_text(json.dumps({"scores": {}}))
    refusals = {
        ("--checkpoint", run, "--output", new, "--confidence", tmp_path / "words.json"): "confidence.words is unknown",
        ("--checkpoint", run, "--output", new, "--confidence", tmp_path / "text.json"): "confidence.mean is '1' and",
        ("--checkpoint", run, "--output", new, "--confidence", tmp_path / "none.json"): "contains no coefficients",
        ("--checkpoint", run, "--output", existing): "already exists",
        ("--checkpoint", existing, "--output", new): "is not a run's folder",
        ("--checkpoint", run, "--output", new, "--which", "last"): "last.safetensors",
        ("--checkpoint", run, "--output", new, "--bad-endings", "of,With"): "bad_endings",
        ("--checkpoint", run, "--output", new, "--encoder-weights", "no.pth"): "are not a file",
        ("--checkpoint", run, "--output", new, "--provenance", tmp_path / "list.json"): "must contain a JSON object",
    }
    for arguments, sentence in refusals.items():
        assert main([str(argument) for argument in arguments]) == 1
        printed = capsys.readouterr()
        assert sentence in printed.err
        assert printed.err.count("\n") == 1
        assert printed.out == ""
    assert not new.exists()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--max-length", "0"], "--max-length must be at least 1, but it is 0"),
        (["--quality", "no.json"], "--quality must be a JSON file of training.evaluate, but there is no file no.json"),
        (["--checkpoint", "no"], "--checkpoint must be the folder of a training.train run, but there is no folder no"),
        (["--presicion", "int8"], "there is no flag --presicion (did you mean --precision?)"),
        ([], "give --checkpoint to export a run, or --precision, --measure"),
    ],
)
def test_wrong_usage_is_one_sentence_and_exit_code_2(
    arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["--output", "new", *arguments])
    assert stop.value.code == 2
    said = capsys.readouterr().err
    assert sentence in said
    assert said.count("\n") == 1
