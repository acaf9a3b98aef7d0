"""Laws of runs on several data sets and on sentences: scored as alone, resumed bit for bit, wrong parts refused."""

import json
from collections.abc import Callable
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
import torch

from engine.bundle.vocabulary import Vocabulary
from tests.training.shapes import ALONE, VOCABULARY, draw_data, make_examples, make_options, make_store, make_table
from training import scst, train
from training.data.batches import CaptionTable
from training.data.examples import Example
from training.data.mixture import JoinedFeatures, join, retitled
from training.data.text_features import text_features
from training.loops.cross_entropy import Trainer
from training.loops.self_critical import SelfCritic
from training.models.decoder import CaptionDecoder
from training.options import ScstOptions

SETS = {"small": (9, 1), "large": (14, 2)}  # images and the seed of their features
SPOKEN = tuple(Example(f"{index}.jpg", ("a red circle", "here is a square"), source="spoken") for index in range(30))


def mixed_table() -> CaptionTable:
    examples = [each for title, (count, _) in SETS.items() for each in retitled(make_examples(count), title)]
    stores = {title: [make_store(count, seed)] for title, (count, seed) in SETS.items()}
    return CaptionTable.build(examples, join(stores), VOCABULARY, 5)


def spoken_table(weight: float = 1.0) -> CaptionTable:
    """Images that are trained on, with sentences behind them."""
    (view,) = join({"seen": [make_store(20)]})
    examples = retitled(make_examples(20), "seen")
    (made,) = text_features(SPOKEN, examples, [view], VOCABULARY)
    views = [JoinedFeatures([("", view), ("", made)])]
    return CaptionTable.build([*examples, *SPOKEN], views, VOCABULARY, 5, {"seen": 1.0, "spoken": weight})


def decoder() -> CaptionDecoder:
    torch.manual_seed(0)
    sizes = make_options().sizes(shape=(6,), vocabulary_size=len(VOCABULARY), pad_id=VOCABULARY.pad_id)
    return CaptionDecoder(sizes)


def trainer(validation: CaptionTable) -> Trainer:
    return Trainer(decoder(), make_options(epochs=2), spoken_table(), validation, ALONE)


def critic(validation: CaptionTable, train: CaptionTable | None = None) -> SelfCritic:
    options = ScstOptions(epochs=2, batches=3, batch_size=6, max_words=5, learning_rate=1e-2)
    return SelfCritic(decoder(), options, train or spoken_table(), validation, ALONE)


@pytest.mark.parametrize("make", [trainer, critic])
def test_the_scores_of_each_set_are_those_of_the_set_alone(make: Callable[..., Any]) -> None:
    (epoch,) = [make(mixed_table()).run_epoch(1, None)]
    name = "validation_loss" if make is trainer else "validation_cider"
    assert list(epoch.by_source) == list(SETS)
    for title, (count, seed) in SETS.items():
        alone = make(make_table(count, seed)).run_epoch(1, None)
        assert alone.by_source == {}
        assert epoch.by_source[title] == getattr(alone, name)
    assert getattr(epoch, name) == pytest.approx(fmean(epoch.by_source.values()))


def test_what_is_never_drawn_makes_no_epoch_longer() -> None:
    for weight, batches in ((0.0, 5), (1.0, 12)):
        options = ScstOptions(batch_size=4)
        assert SelfCritic(decoder(), options, spoken_table(weight), mixed_table(), ALONE).batches == batches


# The commands


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two sets whose images have the same names, an image of one of them broken, and sentences."""
    folder = tmp_path_factory.mktemp("parts")
    for name in ("one", "two"):
        draw_data(folder / name, train=12, validation=4)
    (folder / "two" / "images" / "03.jpg").write_bytes(b"no image")
    lines = [
        {"image": f"{i}.jpg", "captions": ["a purple circle", "a seldom square" if i else "a square"]} for i in range(6)
    ]
    (folder / "said.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\nbroken\n")
    return folder


@pytest.fixture
def command(folder: Path, tmp_path: Path) -> Callable[..., int]:
    small = (
        "--encoder test_vit --encoder-weights random --min-count 1 --sentence-min-count 6 --photographs 1 --batches 2 "
        "--batch-size 8 --units 8 --epochs 2 --device cpu"
    )

    def call(*more: str) -> int:
        given = [word.replace("AT", str(folder)) for word in more]
        places = ["--output", str(tmp_path / "run"), "--features", str(folder / "features")]
        return train.main([*places, *small.split(), *given])

    return call


PARTS = ("--data", "AT/one=1", "--data", "AT/two=0", "--sentences", "AT/said.jsonl=3")


def test_a_run_on_a_mixture_says_what_each_set_came_to_and_is_resumed(
    command: Callable[..., int], folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    assert command(*PARTS, "--epochs", "1") == 0
    printed = capsys.readouterr().out
    assert f"{folder / 'two'} (train list): 12 images, 36 captions, 1 faults\n  broken images: 1 (03.jpg" in printed
    assert f"{folder / 'one'} (train list): 12 images, 36 captions, 0 faults\n" in printed
    assert f"{folder / 'said.jsonl'}: 6 images, 12 captions, 1 faults\n  broken lines: 1 (line 7" in printed
    assert "23 training and 8 validation images" in printed
    (noted,) = json.loads((run / "history.json").read_text())
    each = ", ".join(f"{title} {loss:.4f}" for title, loss in noted["by_source"].items())
    assert list(noted["by_source"]) == ["one", "two"]
    assert f"validation loss {noted['validation_loss']:.4f} ({each})" in printed
    data = json.loads((run / "config.json").read_text())["data"]
    assert data["drawn"] == pytest.approx({"one": 0.25, "two": 0.0, "said.jsonl": 0.75})
    kept = sorted(path.name.rsplit("-", 1)[0] for path in (folder / "features").glob("*/*"))
    assert kept == ["train-one", "train-two", "val-one", "val-two"], "of sets whose images have the same names"
    assert (data["images"], data["captions"]) == ({"train": 23, "val": 8}, {"train": 69, "val": 24})
    assert data["sentences"] == 12
    words = set(Vocabulary.load(run / "vocabulary.json").words)
    assert "purple" in words  # six times
    assert "seldom" not in words  # five times
    assert command(*PARTS[:-1], "AT/said.jsonl=3.001", "--resume") == 1
    assert "the data differs" in capsys.readouterr().err
    assert command(*PARTS, "--resume") == 0
    begun = ["--from", str(run), "--output", str(tmp_path / "rewarded"), "--features", str(folder / "features")]
    small = ["--device", "cpu", "--batches", "2", "--batch-size", "8", "--epochs", "1"]
    assert scst.main([*begun, *small, *(word.replace("AT", str(folder)) for word in PARTS)]) == 0
    (noted,) = json.loads((tmp_path / "rewarded" / "history.json").read_text())
    assert list(noted["by_source"]) == ["one", "two"]


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (("--data", "AT/one", "--data", "AT/one"), "error: two data sets have the name one: rename one"),
        (("--data", "AT/one=-1"), "one must be a number from 0, but it is -1"),
        (("--data", "AT/said.jsonl"), "said.jsonl cannot be opened"),
        (
            ("--data", "AT/one", "--sentences", "AT/said.jsonl", "--finetune-encoder", "1"),
            "error: an encoder cannot be trained on sentences: leave out --sentences or --finetune-encoder",
        ),
        (("--data", "AT/one", "--sentences", "AT/said.jsonl", "--strict"), "broken lines: 1"),
        (("--sentences", "AT/said.jsonl"), "the following arguments are required: --data"),
    ],
)
def test_wrong_parts_are_one_sentence_and_nothing_is_lost(
    given: tuple[str, ...],
    sentence: str,
    command: Callable[..., int],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = tmp_path / "run"
    run.mkdir()
    for name in ("config.json", "best.safetensors"):
        (run / name).write_text("of an earlier run")
    try:
        status = command(*given, "--overwrite")
    except SystemExit as stop:
        status = int(stop.code or 0)
    said = capsys.readouterr().err
    assert status in (1, 2)
    assert sentence in said
    assert "Traceback" not in said
    assert {path.name: path.read_text() for path in run.iterdir()} == {
        "config.json": "of an earlier run",
        "best.safetensors": "of an earlier run",
    }
