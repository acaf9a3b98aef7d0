"""Laws of recipes: their stages make a bundle that says what it is; a kill on the way changes no weight."""

import argparse
import contextlib
import gzip
import importlib
import io
import json
import platform
import re
import shlex
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import IO, Any

import numpy as np
import pytest
import torch

from engine import Captioner
from engine.bundle.bundle import Bundle
from engine.bundle.manifest import Defaults
from export import measure, to_onnx, verify
from tests.drawn import write_drawn_data
from training import balance, calibrate, compare_scores, evaluate_options, joint, scst, train
from training.command import read_options
from training.data import subset
from training.models.checkpoint import load_checkpoint
from training.options import JointOptions, ScstOptions, TrainingOptions
from training.recipes import coco2014, driver, everyday, everyday_attention, flickr8k
from training.recipes.command import words_of
from training.recipes.driver import Recipe, command_line, main

ROOT = Path(__file__).parents[2]
RECIPES = [flickr8k.RECIPE, coco2014.RECIPE, everyday.RECIPE, everyday_attention.RECIPE]
PARSERS: dict[str, Callable[[], argparse.ArgumentParser]] = {
    "training.train": train.command_line,
    "training.scst": scst.command_line,
    "training.joint": joint.command_line,
    "training.balance": balance.command_line,
    "training.calibrate": calibrate.command_line,
    "training.evaluate": evaluate_options.command_line,
    "training.compare_scores": compare_scores.command_line,
    "export.to_onnx": to_onnx._parser,
    **{f"training.recipes.{recipe.name}": lambda recipe=recipe: command_line(recipe) for recipe in RECIPES},  # type: ignore[misc]
}
VALUES = {"WEIGHTS": "pretrained", "DEVICE": "cpu", "THREADS": "2"}
SMALL = {  # behind a command's own options, of which the last counts
    "training.train": " --encoder test_efficientnet --epochs 1 --batches 2 --batch-size 4 --min-count 1 --jitter 0 "
    "--bottleneck 8 --units 8 --embedding 8 --logit-hidden 8 --photographs 1 --no-bf16",
    "training.scst": " --epochs 1 --batches 1 --batch-size 2 --samples 2 --no-bf16",
    "training.joint": " --epochs 1 --batch-size 4 --paraphrases 4 --size 8 --embedding 8 --hidden 8 --jitter 0",
    "training.evaluate": " --resamples 0 --show 1",
}


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    """Gives the tests that come after the number of threads that they had."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Makes stages run within this process, which has PyTorch loaded; holds the modules as they are run."""
    ran: list[str] = []

    def start(words: Sequence[str], say: Callable[[str], None], lock: IO[str]) -> int:
        ran.append(words[0])
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
            status: int = importlib.import_module(words[0]).main(list(words[1:]))
        for line in printed.getvalue().splitlines():
            say(line)
        return status

    monkeypatch.setattr(driver, "start", start)
    monkeypatch.setattr(shutil, "which", lambda _: None)  # scores without Java are quicker
    monkeypatch.setattr(
        measure, "SPEED_IMAGES", 2
    )  # what is timed and verified at length here is tested in tests/export
    monkeypatch.setattr(measure, "ROUNDS", 1)
    monkeypatch.setattr(measure, "available_providers", lambda: ["cpu"])
    monkeypatch.setattr(verify, "BATCH_SIZES", (1, 3))
    return ran


def small(recipe: Recipe) -> Recipe:
    """Returns a recipe with all its stages and next to no work in each."""
    stages = {name: [*lines] for name, lines in recipe.stages.items()}
    for lines in stages.values():
        for number, line in enumerate(lines):
            command, bracket, again = line.partition(" [")
            less = SMALL.get(line.split()[0], " --calibration-images 4" if "--calibration " in line else "")
            lines[number] = command + less + bracket + again
    return replace(recipe, stages=stages)


def parsed(
    recipe: Recipe, stage: str, output: Path, *, smoke: bool = False
) -> Iterator[tuple[str, argparse.Namespace]]:
    """Yields the modules of a stage with what their parsers make of its lines, and leaves empty files as they would."""
    (output / "provenance.json").touch()  # the driver writes it
    data = output / "data"
    for name in recipe.data:
        (data / name).mkdir(parents=True, exist_ok=True)
    for line in recipe.options(smoke=smoke)[stage]:
        module, *words = words_of(line, VALUES | {"DATA": str(data), "OUTPUT": str(output)})
        given = PARSERS[module]().parse_args(words)
        leave(given.output)
        yield module, given


def leave(output: Path | None) -> None:
    """Makes an empty file or folder, as the command would that writes there: the next command looks for it."""
    if output is not None:
        output.touch() if output.suffix else output.mkdir(parents=True, exist_ok=True)


def trained(recipe: Recipe, stage: str, output: Path, *, smoke: bool = False) -> TrainingOptions | ScstOptions:
    ((module, given),) = parsed(recipe, stage, output, smoke=smoke)
    if module == "training.scst":
        return read_options(PARSERS[module](), given, ScstOptions)
    return read_options(PARSERS[module](), given, TrainingOptions)


# What is run


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)
def test_every_command_is_one_that_its_parser_knows_and_a_smoke_run_has_less_work(
    recipe: Recipe, tmp_path: Path
) -> None:
    for stage in recipe.stages:
        for module, given in parsed(recipe, stage, tmp_path):
            if given.output.name == "bundle" and given.checkpoint:
                assert given.name == recipe.bundle
                assert Defaults(**to_onnx._defaults(given)).beam_size == 3
            elif module == "training.joint":
                read_options(PARSERS[module](), given, JointOptions)
            elif module in ("training.train", "training.scst"):
                whole, less = (trained(recipe, stage, tmp_path, smoke=smoke) for smoke in (False, True))
                assert less.epochs * less.batches <= 40
                assert less.warmup <= less.epochs * less.batches / 4, "or nothing is learnt at all"
                changed = {name for name, value in asdict(whole).items() if asdict(less)[name] != value}
                assert changed <= {"epochs", "batches", "batch_size", "warmup"}
    assert recipe.options(smoke=True).keys() == recipe.stages.keys() - {"confidence"}


@pytest.mark.parametrize(
    ("recipe", "record", "name"),
    [(everyday, ".", "everyday"), (everyday_attention, "attention", "everyday-attention")],
    ids=("everyday", "everyday-attention"),
)
def test_what_ships_was_made_by_its_recipe_as_it_stands(recipe: Any, record: str, name: str, tmp_path: Path) -> None:
    noted = json.loads((ROOT / "docs" / "recipe" / record / "recipe.json").read_text(encoding="utf-8"))
    assert noted["options"] == recipe.RECIPE.options(smoke=False)
    assert not noted["smoke"]
    assert all(stage["finished"] for stage in noted["stages"].values())
    assert [*noted["stages"]] == [*recipe.STAGES]
    given_to = {stage: [*parsed(recipe.RECIPE, stage, tmp_path)] for stage in recipe.STAGES}
    ((_, given),) = given_to["bundle"]
    manifest = Bundle.load(name).manifest
    assert manifest.defaults == Defaults(**to_onnx._defaults(given))
    assert manifest.name == given.name == recipe.BUNDLE


def test_a_page_on_training_names_only_commands_that_there_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("theirs.json").touch()  # the reader's, as are the photographs
    Path("mine").mkdir()
    text = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
    blocks = "".join(re.findall(r"^```\n(.*?)^```", text, re.MULTILINE | re.DOTALL)).replace("\\\n", " ")
    lines = [shlex.split(line) for line in blocks.splitlines()]
    assert len(lines) >= 6
    for python, m, module, *arguments in lines:
        assert (python, m) == ("python", "-m")
        leave(PARSERS[module]().parse_args(arguments).output)  # ends the test where it is not one


def test_processes_concern_training_on_captions_and_rewards_only(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[Sequence[str]] = []

    def start(words: Sequence[str], say: Callable[[str], None], lock: IO[str]) -> int:
        started.append(words)
        return 0

    monkeypatch.setattr(driver, "start", start)
    given = ["--data", str(data), "--output", str(tmp_path / "out"), "--processes", "2"]
    assert main(everyday_attention.RECIPE, given) == 0
    together = [words[words.index("-m") + 1] for words in started if words[0] == "torch.distributed.run"]
    assert together == ["training.train", "training.train", "training.scst"]
    assert all("--nproc-per-node=2" in words for words in started[:3])
    alone = [words[0] for words in started if words[0] != "torch.distributed.run"]
    assert len(alone) > 4
    assert not {"training.train", "training.scst"} & {*alone}
    record = json.loads((tmp_path / "out" / "recipe.json").read_text())
    assert {made["processes"] for stage in record["stages"].values() for made in stage["made_on"]} == {2}


# What comes out


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Everything that a recipe may want, drawn; the sentences say what the drawings show."""
    folder = tmp_path_factory.mktemp("data")
    for name in everyday.SETS:
        write_drawn_data(folder / name, train=8, validation=4)
    (folder / "sentences").mkdir()
    for number, name in enumerate(everyday.SENTENCES):
        said = ["A purple square .", "There is a purple circle on the paper ."]
        lines = (json.dumps({"image": f"{i}.jpg", "captions": said[: 1 + number]}) + "\n" for i in range(50))
        (folder / name).write_bytes(gzip.compress("".join(lines).encode()))
    return folder


@pytest.mark.parametrize("recipe", RECIPES[1:], ids=lambda recipe: recipe.name)
def test_a_smoke_run_leaves_a_bundle_that_says_what_it_is(
    recipe: Recipe, data: Path, tmp_path: Path, ran: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driver, "SMALLER", {})
    monkeypatch.setattr(subset, "IMAGES", {"train": 6, "val": 3})
    output, recipe = tmp_path / "out", small(recipe)
    data = data if recipe.sentences else data / "flickr8k"
    given = ["--data", str(data), "--output", str(output), "--threads", "1", "--encoder-weights", "random", "--smoke"]
    assert main(recipe, given) == 0, (output / "log.txt").read_text()
    expected = [line.split()[0] for lines in recipe.options(smoke=True).values() for line in lines]
    assert ran == expected
    assert main(recipe, given) == 0
    assert ran == expected, "a finished recipe runs nothing again"
    record, log = json.loads((output / "recipe.json").read_text()), (output / "log.txt").read_text()
    assert all(stage["finished"] for stage in record["stages"].values())
    assert "epoch   1  loss" in log
    manifest = Bundle.load(output / "bundle").manifest
    assert manifest.name == recipe.bundle
    assert manifest.provenance["data"] == recipe.provenance["data"]
    assert manifest.variants.keys() == {"fp32", "int8"}
    for text in (log, json.dumps(record), json.dumps(manifest.to_dict())):
        for place in (str(tmp_path), str(data), platform.node()):
            assert place not in text
    if recipe.name == everyday.RECIPE.name:
        check_everyday(output, manifest)
    elif recipe.sentences:
        assert [part.name for part in manifest.context] == ["keys", "values"]
        assert ("decoder_init", "int8") in {(graph.graph, graph.precision) for graph in manifest.graphs}
        assert [*manifest.quality] == [*everyday.SETS]
        assert manifest.provenance["encoder"]["weights"] == "encoder.safetensors"
    else:
        assert manifest.quality["scores"] == json.loads((output / "scores" / "scores.json").read_text())["scores"]
        assert manifest.variants["fp32"].cider == pytest.approx(manifest.quality["scores"]["CIDEr"], abs=1e-3)
        assert "<img" in (output / "report.html").read_text()
    assert Captioner(output / "bundle", provider="cpu").caption([next((output / "data").rglob("*.jpg"))])[0].tokens


def check_everyday(output: Path, manifest: Any) -> None:
    """Asserts that the bundle is of both data sets, and that all stages are of one vocabulary and one encoder."""
    assert manifest.vector_size == 8
    assert manifest.provenance["vectors"]["data"]["names"] == [*everyday.SETS]
    assert [*manifest.quality] == [*everyday.SETS]
    scores = [quality["scores"]["CIDEr"] for quality in manifest.quality.values()]
    assert manifest.variants["fp32"].cider == pytest.approx(np.mean(scores), abs=1e-3)
    calibration = manifest.variants["int8"].record["calibration"]
    assert (calibration["photographs"], calibration["source"]) == (4, "coco-mini, train list; flickr8k, train list")
    assert manifest.provenance["encoder"]["weights"] == "encoder.safetensors"
    runs = [load_checkpoint(output / name) for name in ("cross-entropy", "fine-tuning", "self-critical")]
    assert "purple" in runs[0].vocabulary.words, "which is in the sentences alone"
    assert len({run.vocabulary.words for run in runs}) == 1
    assert len({run.config["encoder"]["fingerprint"] for run in runs[1:]}) == 1
    for run, name in zip(runs[1:], ("fine-tuning", "self-critical"), strict=True):
        assert run.encoder_weights == str(output / name / "encoder.safetensors"), "each run has its own"
    weights = {"coco-mini": everyday.COCO, "flickr8k": everyday.FLICKR}
    texts = {"coco.jsonl.gz": everyday.COCO_TEXT, "flickr30k.jsonl.gz": everyday.FLICKR_TEXT}
    for run in (runs[0], runs[2]):
        assert run.config["data"]["drawn"] == pytest.approx(weights | texts, abs=1e-3)
