"""Laws of the evaluation command, on a captioner that knows the answers."""

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from engine import Beam, Caption, Greedy, Hypothesis, ImageError, OptionsError
from engine.bundle.manifest import Defaults
from engine.options import Decoding
from tests.training.shapes import captions, draw_data
from training import evaluate
from training.data.datasets import open_dataset
from training.evaluate import main


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return draw_data(tmp_path / "data", train=16, validation=8)


@pytest.fixture
def asked(data: Path, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Puts a captioner in place that answers the first reference; returns what it was asked for."""
    dataset = open_dataset(data, "val")
    answers = {dataset.read(example.name): example.captions[0] for example in dataset.examples}
    asked: list[Any] = []
    confidence = 0.75

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
                yield Caption.best_of([Hypothesis(answers[content], -1.0, -1.0, (), (), True, confidence=confidence)])

        def caption(self, images: list[bytes], decoding: Beam) -> list[Caption]:
            texts = [
                [answers[content], *(f"way {n}" for n in range(decoding.num_hypotheses - 1))] for content in images
            ]
            return [Caption.best_of([Hypothesis(text, -1.0, -1.0, (), (), True) for text in some]) for some in texts]

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
    assert "METEOR is skipped" in printed
    assert "images/s" in printed
    written = json.loads((tmp_path / "scores.json").read_text())
    assert written["scores"]["BLEU-3"] == pytest.approx(1)
    assert written["images"] == 8
    assert written["images_per_second"] > 0
    assert written["tokeniser"] == r"lower-case \w+ words"
    assert written["captions"]["16.jpg"] == captions("red", "circle")[0]
    assert (written["provider"], written["precision"], written["bundle"]) == ("auto", "auto", "knowing")
    assert written["per_image"]["17.jpg"]["BLEU-3"] == pytest.approx(1)
    assert written["intervals"].keys() == written["scores"].keys() == written["per_image"]["17.jpg"].keys()
    assert written["statistics"]["captions"]["unseen"] == 0  # shapes and colours are those of the training list
    assert written["statistics"]["people"]["mean_length"] == 3
    assert set(written["confidences"].values()) == {0.75}


def test_the_decoding_asked_for_is_the_one_used(command: Callable[..., int], asked: list[Any]) -> None:
    assert command() == command("--greedy") == command("--beam", "5", "--length-penalty", "0.7") == 0
    assert command("--no-repeat-ngram-size", "3", "--bad-endings", "a,of") == 0
    rules = Beam(no_repeat_ngram_size=3, bad_endings=("a", "of"))
    assert asked == [Beam(), Greedy(), Beam(beam_size=5, length_penalty=0.7), rules]


@pytest.mark.usefixtures("asked")
def test_the_decoding_is_named_with_the_values_in_use(
    command: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    command()
    defaults = Defaults()
    assert f"beam {defaults.beam_size}, length penalty {defaults.length_penalty:g}," in capsys.readouterr().out
    command("--beam", "7", "--length-penalty", "0.5")
    assert "beam 7, length penalty 0.5," in capsys.readouterr().out
    command("--greedy", "--no-repeat-ngram-size", "3", "--bad-endings", "a,the")
    assert "greedy, no 3 words twice, 2 bad endings," in capsys.readouterr().out


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
def test_errors_are_one_sentence(
    command: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (results := tmp_path / "r.json").write_text("[]")
    assert command("--bundle", "bad") == 1
    assert capsys.readouterr().err == "error: this bundle is bad\n"
    for more, sentence in (
        (("--limit", "0"), "--limit must be"),
        (("--resamples", "-1"), "--resamples must be"),
        (("--show", "0"), "--show must be"),
        (("--greedy", "--length-penalty", "1"), "--greedy"),
        (("--batch-size", "0"), "--batch-size must be at least 1, but it is 0"),
        (("--beam", "0"), "--beam must be at least 1, but it is 0"),
        (("--results", "none.json"), '--results must be a JSON list of {"image_id", "caption"}, but there is no file'),
        (("--sentences", str(tmp_path)), f"JSON lines, but {tmp_path} is no file"),
        *(
            (("--results", str(results), option, value), f"--results scores existing captions, so {option} ")
            for option, value in (
                *(("--beam", "3"), ("--length-penalty", "0"), ("--no-repeat-ngram-size", "0"), ("--bundle", "b")),
                *(("--provider", "nonsense"), ("--precision", "int8"), ("--batch-size", "1")),
            )
        ),
    ):
        with pytest.raises(SystemExit):
            command(*more)
        assert sentence in capsys.readouterr().err


def test_captions_go_out_as_a_result_file_and_come_back_with_the_same_scores(
    command: Callable[..., int], asked: list[Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results, scores = tmp_path / "results.json", tmp_path / "scores.json"
    assert command("--results-out", str(results)) == 0
    first = json.loads(scores.read_text())
    assert json.loads(results.read_text())[0] == {"image_id": "16.jpg", "caption": captions("red", "circle")[0]}
    asked.clear()
    assert command("--results", str(results)) == 0
    assert asked == []  # no engine
    second = json.loads(scores.read_text())
    assert [second[name] for name in ("bundle", "provider", "images_per_second")] == [None] * 3
    assert second["decoding"] == "captions of results.json"
    for name in ("scores", "intervals", "statistics", "per_image", "counts", "captions"):
        assert second[name] == first[name]
    assert command("--results", str(results), "--limit", "2") == 0
    assert list(json.loads(scores.read_text())["captions"]) == ["16.jpg", "17.jpg"]
    capsys.readouterr()


@pytest.mark.usefixtures("asked")
def test_results_that_lack_images_are_said_and_an_error_when_strict(
    command: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "r.json").write_text('[{"image_id": "17.jpg", "caption": "a green circle"}]')
    assert command("--results", str(tmp_path / "r.json")) == 0
    printed = capsys.readouterr().out
    assert "images without a result: 7 (16.jpg, 18.jpg" in printed
    assert "1 images of" in printed
    assert command("--results", str(tmp_path / "r.json"), "--strict") == 1
    assert "images without a result: 7" in capsys.readouterr().err


@pytest.mark.usefixtures("asked")
def test_the_page_shows_photographs_with_alternatives(command: Callable[..., int], tmp_path: Path) -> None:
    report = tmp_path / "report.html"
    assert command("--report", str(report), "--show", "2") == 0
    text = report.read_text()
    assert text.count("<article>") == 6
    assert "<li>way 0</li><li>way 1</li><li>way 2</li><li>way 3</li></ul>" in text
    assert "<dt>confidence</dt><dd>75%</dd>" in text
    assert "<dt>Alternatives" not in text


def test_a_page_without_alternatives_says_so(command: Callable[..., int], asked: list[Any], tmp_path: Path) -> None:
    report, results = tmp_path / "report.html", tmp_path / "results.json"
    assert command("--report", str(report), "--greedy", "--results-out", str(results)) == 0
    assert asked == [Greedy()]
    assert "<dt>Alternatives</dt><dd>none: greedy search keeps only one sentence</dd>" in report.read_text()
    assert "<h4>Alternatives</h4>" not in report.read_text()
    assert command("--report", str(report), "--results", str(results)) == 0
    assert "<dt>Alternatives</dt><dd>none: a result file has one caption for each photograph</dd>" in report.read_text()


@pytest.mark.usefixtures("asked")
def test_a_photograph_that_cannot_be_shown_leaves_its_name_on_the_page(
    command: Callable[..., int], data: Path, tmp_path: Path
) -> None:
    results, report = tmp_path / "results.json", tmp_path / "report.html"
    assert command("--results-out", str(results)) == 0
    whole = (data / "images" / "17.jpg").read_bytes()
    (data / "images" / "17.jpg").write_bytes(whole[: len(whole) // 2])
    assert command("--results", str(results), "--report", str(report), "--show", "8") == 0
    text = report.read_text()
    assert "<b>17.jpg</b> cannot be shown: " in text
    assert 'alt="17.jpg"' not in text
    assert 'alt="18.jpg"' in text


@pytest.mark.usefixtures("asked")
def test_without_resamples_there_are_no_intervals(
    command: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command("--resamples", "0", "--report", str(tmp_path / "report.html")) == 0
    assert "intervals" not in capsys.readouterr().out
    assert json.loads((tmp_path / "scores.json").read_text())["intervals"] == {}


@pytest.mark.usefixtures("asked")
def test_without_the_training_list_the_share_unseen_is_not_known(
    command: Callable[..., int], data: Path, tmp_path: Path
) -> None:
    (data / "train.txt").unlink()
    assert command() == 0
    assert json.loads((tmp_path / "scores.json").read_text())["statistics"]["captions"]["unseen"] is None
