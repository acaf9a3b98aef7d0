"""Laws of the evaluation command, on a captioner that knows the answers."""

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from engine import Beam, Caption, Greedy, Hypothesis, ImageError, OptionsError
from engine.manifest import Defaults
from engine.options import Decoding
from tests.training.shapes import captions, draw_data
from training import evaluate
from training.data import open_dataset
from training.evaluate import main

COLOURS = ("red", "green", "blue", "yellow")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return draw_data(tmp_path / "data", train=16, validation=8)


@pytest.fixture
def asked(data: Path, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Puts a captioner in place that answers the first reference; returns what it was asked for."""
    dataset = open_dataset(data, "val")
    answers = {dataset.read(example.name): example.captions[0] for example in dataset.examples}
    asked: list[Any] = []

    class Knowing:
        def __init__(self, bundle: Path | None, *, provider: str, precision: str, batch_size: int) -> None:
            if bundle == Path("bad"):
                raise OptionsError("this bundle is bad")
            self.provider, self.precision = provider, precision
            self.bundle = SimpleNamespace(manifest=SimpleNamespace(name="knowing", defaults=Defaults()))

        def iter_captions(
            self, images: Iterable[bytes], decoding: Decoding, *, on_error: str
        ) -> Iterator[Caption | ImageError]:
            asked.append(decoding)
            for entry, content in enumerate(images):
                if content not in answers:
                    yield ImageError("it is empty", source="0 bytes", entry=entry)
                    continue
                yield Caption.best_of([Hypothesis(answers[content], -1.0, -1.0, (), (), True)])

    monkeypatch.setattr(evaluate, "Captioner", Knowing)
    monkeypatch.setenv("PATH", "")  # without Java: fast
    return asked


@pytest.fixture
def command(data: Path, tmp_path: Path) -> Callable[..., int]:
    return lambda *more: main(["--data", str(data), "--output", str(tmp_path / "scores.json"), *more])


@pytest.mark.usefixtures("asked")
def test_right_captions_get_full_scores_and_everything_is_written(
    command: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command() == 0
    printed = capsys.readouterr().out
    assert "BLEU-1   1.0000" in printed
    assert "METEOR is left out" in printed
    assert "images/s" in printed
    written = json.loads((tmp_path / "scores.json").read_text())
    assert written["scores"]["BLEU-3"] == pytest.approx(1)
    assert written["images"] == 8
    assert written["images_per_second"] > 0
    assert written["tokeniser"] == r"lower-case \w+ words"
    assert written["captions"]["16.jpg"] == captions("red", "circle")[0]
    assert (written["provider"], written["precision"], written["bundle"]) == ("auto", "auto", "knowing")


def test_the_decoding_asked_for_is_the_one_used(command: Callable[..., int], asked: list[Any]) -> None:
    assert command() == command("--greedy") == command("--beam", "5", "--length-penalty", "0.7") == 0
    assert asked == [Beam(), Greedy(), Beam(beam_size=5, length_penalty=0.7)]


@pytest.mark.usefixtures("asked")
def test_the_decoding_is_named_with_the_values_in_use(
    command: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    command()
    defaults = Defaults()
    assert f"beam {defaults.beam_size}, length penalty {defaults.length_penalty:g}," in capsys.readouterr().out
    command("--beam", "7", "--length-penalty", "0.5")
    assert "beam 7, length penalty 0.5," in capsys.readouterr().out
    command("--greedy")
    assert "greedy," in capsys.readouterr().out


@pytest.mark.usefixtures("asked")
def test_a_limit_scores_only_the_first_images(command: Callable[..., int], tmp_path: Path) -> None:
    assert command("--limit", "3") == 0
    assert list(json.loads((tmp_path / "scores.json").read_text())["captions"]) == ["16.jpg", "17.jpg", "18.jpg"]


@pytest.mark.usefixtures("asked")
def test_a_broken_image_is_named_and_the_rest_scored(
    command: Callable[..., int], data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (data / "images" / "17.jpg").write_bytes(b"")
    assert command() == 0
    assert "left out 17.jpg: it is empty" in capsys.readouterr().err
    assert len(json.loads((tmp_path / "scores.json").read_text())["captions"]) == 7
    assert command("--strict") == 1
    assert "broken images: 1 (17.jpg: it is empty)" in capsys.readouterr().err


@pytest.mark.usefixtures("asked")
def test_a_file_that_cannot_be_read_keeps_its_reason(
    command: Callable[..., int], data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (data / "images" / "17.jpg").unlink()
    (data / "images" / "17.jpg").mkdir()
    assert command() == 0
    printed = capsys.readouterr()
    assert "left out 17.jpg: [Errno 21] Is a directory" in printed.err
    assert "broken images: 1 (17.jpg: [Errno 21]" in printed.out


@pytest.mark.usefixtures("asked")
def test_scores_are_kept_also_when_no_file_is_named(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["--data", str(data)]) == 0
    assert "written to scores.json" in capsys.readouterr().out
    assert json.loads((tmp_path / "scores.json").read_text())["images"] == 8


def test_an_output_that_cannot_be_written_is_said_before_any_work(
    command: Callable[..., int], tmp_path: Path, asked: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    for output in (tmp_path / "nowhere" / "scores.json", tmp_path):
        with pytest.raises(SystemExit):
            command("--output", str(output))
        assert "it must be a file in a folder that exists" in capsys.readouterr().err
    assert asked == []


def test_a_failing_disk_is_one_sentence(
    command: Callable[..., int], asked: list[Any], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError("no space is left")

    monkeypatch.setattr(evaluate, "write_json", full)
    assert command() == 1
    assert len(asked) == 1
    assert capsys.readouterr().err == "error: no space is left\n"


@pytest.mark.usefixtures("asked")
def test_errors_are_one_sentence(command: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    assert command("--bundle", "bad") == 1
    assert capsys.readouterr().err == "error: this bundle is bad\n"
    for more, sentence in ((("--limit", "0"), "--limit must be"), (("--greedy", "--length-penalty", "1"), "--greedy")):
        with pytest.raises(SystemExit):
            command(*more)
        assert sentence in capsys.readouterr().err
