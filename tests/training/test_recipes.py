"""Laws of recipes: all stages make a bundle that says what it is; a kill on the way changes no weight."""

import argparse
import contextlib
import hashlib
import importlib
import io
import json
import platform
import re
import shlex
import signal
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from engine import Captioner
from engine.bundle.bundle import Bundle
from engine.bundle.manifest import Defaults
from engine.bundle.vocabulary import Vocabulary
from export import measure, to_onnx, verify
from tests.drawn import write_drawn_data
from tests.training import small_recipe
from training import calibrate, compare_scores, evaluate_options, scst, train
from training.command import read_options
from training.data.batches import CaptionTable
from training.data.examples import Example
from training.data.features import FeatureStore
from training.models.checkpoint import load_tensors
from training.options import ScstOptions, TrainingOptions
from training.recipes import coco2014, command, flickr8k, stages
from training.recipes.curves import draw_stages
from training.recipes.recipe import FINE_TUNING, Recipe, flags
from training.recipes.subset import write_subset

ROOT = Path(__file__).parents[2]
RECIPES = [flickr8k.RECIPE, coco2014.RECIPE, small_recipe.RECIPE]
PARSERS: dict[str, Callable[[], argparse.ArgumentParser]] = {
    "training.train": train._parser,
    "training.scst": scst._parser,
    "training.calibrate": calibrate._parser,
    "training.evaluate": evaluate_options._parser,
    "training.compare_scores": compare_scores._parser,
    "export.to_onnx": to_onnx._parser,
    "training.recipes.flickr8k": lambda: command._parser(flickr8k.RECIPE),
    "training.recipes.coco2014": lambda: command._parser(coco2014.RECIPE),
}


def run_within(patch: pytest.MonkeyPatch) -> list[str]:
    """Makes stages run within this process, which has PyTorch loaded; returns the modules as they are run."""
    ran: list[str] = []

    def run(module: str, arguments: Sequence[str], note: Callable[[str], None], held: Sequence[int] = ()) -> int:
        ran.append(module)
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
            status: int = importlib.import_module(module).main(list(arguments))
        for line in printed.getvalue().splitlines():
            note(line)
        return status

    patch.setattr(stages, "run_module", run)
    patch.setattr(measure, "SPEED_IMAGES", 8)  # what is timed and verified at length here is tested in tests/export
    patch.setattr(measure, "ROUNDS", 1)
    patch.setattr(verify, "BATCH_SIZES", (1, 3))
    return ran


@pytest.fixture
def within(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    return run_within(monkeypatch)


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    """Gives the tests that come after the number of threads that they had."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Drawn shapes, of which people say so different things that some captions are good and some are not."""
    folder = tmp_path_factory.mktemp("drawn") / "data"
    write_drawn_data(folder, train=48, validation=140)
    lines = (folder / "captions.csv").read_text().splitlines()
    for row in range(2, len(lines), 6):
        name, colour = lines[row].split(",")[0], lines[row].split()[3]
        lines[row] = f"{name},Some {colour} thing lies there and waits ."
    (folder / "captions.csv").write_text("\n".join(lines) + "\n")
    return folder


def cook(recipe: Recipe, data: Path, output: Path, *more: str) -> int:
    return command.main(recipe, ["--data", str(data), "--output", str(output), "--threads", "1", *more])


# What is run


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)
@pytest.mark.parametrize("smaller", [False, True])
def test_every_command_of_a_recipe_is_one_that_its_parser_knows(recipe: Recipe, smaller: bool) -> None:
    recipe = recipe.smaller() if smaller else recipe
    for stage in recipe.stages(Path("d"), Path("o"), device="cpu", threads=2):
        for each in stage.commands:
            given = PARSERS[each.module]().parse_args([*each.arguments, *([each.again] if each.again else [])])
            if each.module == "training.train":
                meant = recipe.fine_tuning if stage.name == FINE_TUNING else recipe.cross_entropy
                assert read_options(PARSERS[each.module](), given, TrainingOptions) == meant
            elif each.module == "training.scst":
                assert read_options(PARSERS[each.module](), given, ScstOptions) == recipe.self_critical
            elif each.arguments[0] == "--checkpoint":
                assert Defaults(**to_onnx._defaults(given)) == recipe.defaults


def test_flags_say_what_is_not_the_default() -> None:
    assert [*flags(ScstOptions())] == []
    assert [*flags(ScstOptions(count_end=False, bf16=True, samples=3))] == ["--bf16", "--samples=3", "--no-count-end"]
    assert [*flags(Defaults(bad_endings=("a", "the")))] == ["--bad-endings=a,the"]


def test_the_coco_recipe_has_the_sizes_of_the_seed() -> None:
    training = coco2014.RECIPE.cross_entropy
    sizes = training.bottleneck, training.units, training.embedding, training.logit_hidden
    assert (training.encoder, sizes) == ("inception_v3", (120, 300, 100, 120))
    assert (training.epochs, training.batches, training.batch_size, training.patience) == (30, 1000, 64, 0)


def test_fine_tuning_in_the_shipped_recipe_shows_every_image_once_an_epoch() -> None:
    training = flickr8k.RECIPE.fine_tuning
    assert training is not None
    names = tuple(map(str, range(6000)))
    examples = [Example(name, ("a dog",) * 5) for name in names]
    vocabulary = Vocabulary.build(["a dog"], min_count=1)
    table = CaptionTable.build(
        examples, [FeatureStore(names, np.zeros((6000, 1), np.float16))], vocabulary, training.max_words
    )
    batches = list(table.drawn_whole(np.random.default_rng(0), training.batches, training.batch_size))
    seen = np.concatenate([batch.images for batch in batches])
    np.testing.assert_array_equal(np.bincount(seen), np.full(6000, 5))  # with each of its captions
    assert {len(batch.features) for batch in batches} == {31, 32}


def test_what_ships_was_made_by_the_recipe_as_it_stands() -> None:
    noted = json.loads((ROOT / "docs" / "recipe" / "recipe.json").read_text(encoding="utf-8"))["ingredients"]
    made = json.loads(json.dumps(flickr8k.RECIPE.ingredients()))
    for stage in ("cross_entropy", "fine_tuning"):
        assert noted[stage].pop("scheduled_sampling") == 0.0  # options that are gone, and were not in use
    assert noted["self_critical"].pop("finetune_encoder") == ""
    del noted["self_critical"]["encoder_learning_rate"]
    # decoding's defaults were changed in the finished bundle, which needed no training
    assert noted | {"defaults": None} == made | {"defaults": None}
    manifest = Bundle.load(ROOT / "engine" / "models" / "flickr8k").manifest
    assert manifest.defaults == flickr8k.RECIPE.defaults
    assert manifest.name == flickr8k.RECIPE.bundle


def test_a_page_on_training_names_only_commands_that_there_are() -> None:
    text = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
    blocks = "".join(re.findall(r"^```\n(.*?)^```", text, re.MULTILINE | re.DOTALL)).replace("\\\n", " ")
    lines = [shlex.split(line) for line in blocks.splitlines()]
    assert len(lines) >= 6
    for python, m, module, *arguments in lines:
        assert (python, m) == ("python", "-m")
        PARSERS[module]().parse_args(arguments)  # ends the test where it is not one


# What comes out


def weights(output: Path) -> dict[str, torch.Tensor]:
    files = {
        f"{run}/{name}": load_tensors(output / run / f"{name}.safetensors")[0]
        for run in ("cross-entropy", "fine-tuning", "self-critical")
        for name in ("best", "last", "encoder")
        if (run, name) != ("cross-entropy", "encoder")  # which does not learn there
    }
    return {f"{file}:{name}": tensor for file, tensors in files.items() for name, tensor in tensors.items()}


@pytest.fixture(scope="module")
def whole(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the small recipe, run through without a stop."""
    output = tmp_path_factory.mktemp("whole") / "out"
    with pytest.MonkeyPatch.context() as patch:
        run_within(patch)
        assert cook(small_recipe.RECIPE, data, output) == 0
    return output


def test_a_recipe_leaves_a_bundle_that_says_what_it_is(whole: Path, data: Path) -> None:
    manifest = Bundle.load(whole / "bundle").manifest
    assert manifest.name == "small-drawn"
    assert manifest.defaults == small_recipe.RECIPE.defaults
    assert manifest.provenance["data"]["name"] == "drawn shapes"
    scores = json.loads((whole / "scores" / "scores.json").read_text())["scores"]
    assert manifest.quality["scores"] == scores
    assert manifest.variants["fp32"].cider == pytest.approx(scores["CIDEr"], abs=1e-3)
    assert manifest.variants["int8"].cider is not None
    assert manifest.confidence
    caption = Captioner(whole / "bundle", provider="cpu", precision="fp32").caption([data / "images" / "0050.jpg"])[0]
    assert 0 <= caption.confidence <= 1  # NaN were none
    assert "<img" in (whole / "report.html").read_text()
    for picture in ("curves.png", "cross-entropy/curve.png", "self-critical/curve.png", "confidence/reliability.png"):
        assert (whole / picture).read_bytes().startswith(b"\x89PNG")


def test_a_record_tells_what_was_done_and_no_place(whole: Path, data: Path) -> None:
    record = json.loads((whole / "recipe.json").read_text())
    training = record["ingredients"]["cross_entropy"]
    assert TrainingOptions(**training) == small_recipe.RECIPE.cross_entropy
    assert record["data"]["train"]["images"] == 48
    assert [*record["stages"]] == ["cross-entropy", "fine-tuning", "self-critical", "bundle", "confidence", "scores"]
    assert all(stage["seconds"] > 0 and stage["finished"] for stage in record["stages"].values())
    for stage in record["stages"].values():
        (made_on,) = stage["made_on"]
        assert {"torch", "onnxruntime"} < made_on["versions"].keys()
        assert made_on["machine"]["threads"] == 1
    for name in ("cross-entropy", "fine-tuning", "self-critical"):
        assert record["stages"][name]["precision"] == ["float32"]
    log = (whole / "log.txt").read_text()
    assert "epoch   2  loss" in log
    for text in (log, json.dumps(record), (whole / "cross-entropy" / "config.json").read_text()):
        assert str(whole) not in text
        assert str(data) not in text
        assert platform.node() not in text


def test_a_finished_recipe_runs_nothing_again(whole: Path, data: Path, within: list[str]) -> None:
    assert cook(small_recipe.RECIPE, data, whole) == 0
    assert within == []


def test_other_options_or_data_are_refused(
    whole: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = replace(small_recipe.RECIPE, cross_entropy=replace(small_recipe.RECIPE.cross_entropy, seed=4))
    assert cook(other, data, whole) == 1
    assert "ingredients.cross_entropy.seed was 3 and is 4" in capsys.readouterr().err
    write_subset(data, tmp_path / "fewer", {"train": 8, "val": 4})
    assert cook(small_recipe.RECIPE, tmp_path / "fewer", whole) == 1
    assert "data.train.images was 48 and is 8" in capsys.readouterr().err
    assert cook(small_recipe.RECIPE, tmp_path / "nowhere", whole) == 1
    assert "nowhere cannot be opened" in capsys.readouterr().err


def test_wrong_options_are_refused_before_a_folder_is_begun(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    with pytest.raises(SystemExit) as stop:
        cook(small_recipe.RECIPE, data, output, "--threads", "-1")
    assert stop.value.code == 2
    assert "--threads must be at least 0" in capsys.readouterr().err
    assert cook(small_recipe.RECIPE, data, output, "--encoder-weights", "/nope.pth") == 1
    assert "the encoder weights /nope.pth are not a file" in capsys.readouterr().err
    assert not output.exists()


def test_encoder_weights_are_known_by_what_is_in_them(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Recipe, "stages", lambda *_, **__: ())
    output, weights, link = tmp_path / "out", tmp_path / "encoder.pth", tmp_path / "elsewhere" / "encoder.pth"
    torch.save({"a": torch.zeros(1)}, weights)
    assert cook(small_recipe.RECIPE, data, output, "--encoder-weights", str(weights)) == 0
    record = json.loads((output / "recipe.json").read_text())
    assert record["encoder_weights_sha256"] == hashlib.sha256(weights.read_bytes()).hexdigest()
    link.parent.mkdir()
    torch.save({"a": torch.ones(1)}, link)
    (output / "recipe.json").write_text(json.dumps(record | {"stages": {"cross-entropy": {"finished": True}}}))
    (output / "cross-entropy").mkdir()
    assert cook(small_recipe.RECIPE, data, output, "--encoder-weights", str(link)) == 1
    assert "encoder_weights_sha256 was" in capsys.readouterr().err


def test_a_recipe_that_was_killed_comes_to_the_same_weights(
    whole: Path, data: Path, tmp_path: Path, within: list[str]
) -> None:
    output = tmp_path / "out"
    given = ["--data", str(data), "--output", str(output), "--threads", "1"]
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.training.small_recipe", *given],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    with process.stdout:
        seen = next(line for line in process.stdout if line.startswith(("epoch   1", "error")))
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert seen.startswith("epoch   1")
    assert not (output / "bundle").exists()
    # only what is trained need be compared: the rest follows from it
    recipe = small_recipe.RECIPE
    trained = recipe.stages(data, output, device="cpu", threads=1)[:3]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Recipe, "stages", lambda *_, **__: trained)
        assert command.main(recipe, given) == 0
    these, those = weights(whole), weights(output)
    assert these.keys() == those.keys()
    assert [name for name in these if not torch.equal(these[name], those[name])] == []


# Other data


def write_coco(folder: Path, images: int) -> None:
    """Writes COCO 2014's archives with drawn shapes."""
    drawn = folder.with_name("drawn")
    write_drawn_data(drawn, train=images, validation=images)
    rows = [line.split(",", 1) for line in (drawn / "captions.csv").read_text().splitlines()[1:]]
    folder.mkdir()
    with zipfile.ZipFile(folder / "captions_train-val2014.zip", "w") as captions:
        for split in ("train", "val"):
            names = (drawn / f"{split}.txt").read_text().split()
            ids = {name: number for number, name in enumerate(names)}
            document: dict[str, Any] = {
                "images": [{"id": ids[name], "file_name": name} for name in names],
                "annotations": [{"image_id": ids[name], "caption": text} for name, text in rows if name in ids],
            }
            captions.writestr(f"annotations/captions_{split}2014.json", json.dumps(document))
            with zipfile.ZipFile(folder / f"{split}2014.zip", "w") as archive:
                for name in names:
                    archive.writestr(f"{split}2014/{name}", (drawn / "images" / name).read_bytes())


def test_the_coco_recipe_runs_on_a_small_coco(tmp_path: Path, within: list[str]) -> None:
    write_coco(tmp_path / "coco", images=16)
    full = coco2014.RECIPE
    tiny = replace(full.cross_entropy, epochs=1, batches=2, batch_size=4, min_count=1)
    recipe = replace(full, cross_entropy=tiny, precisions=("fp32",))
    output = tmp_path / "out"
    assert cook(recipe, tmp_path / "coco", output, "--encoder-weights", "random") == 0
    assert within == ["training.train", "export.to_onnx", "training.evaluate", "export.to_onnx"]
    manifest = Bundle.load(output / "bundle").manifest
    assert (manifest.encoder, manifest.feature_size, manifest.units) == ("inception_v3", 2048, 300)
    assert manifest.quality["images"] == 16
    epoch = json.loads((output / "cross-entropy" / "history.json").read_text())[-1]
    assert {"train_loss", "validation_loss", "validation_accuracy"} < epoch.keys()  # what the model card compares


def test_a_subset_is_a_data_set_of_its_first_images(tmp_path: Path, data: Path) -> None:
    from training.data.datasets import open_dataset

    write_coco(tmp_path / "coco", images=6)
    write_subset(tmp_path / "coco", tmp_path / "few", {"train": 3, "val": 2})
    for split, count in (("train", 3), ("val", 2)):
        of, few = open_dataset(tmp_path / "coco", split), open_dataset(tmp_path / "few", split, strict=True)
        assert [(e.name, e.captions) for e in few.examples] == [(e.name, e.captions) for e in of.examples[:count]]
        assert all(few.read(e.name) == of.read(e.name) for e in few.examples)


def test_a_smaller_recipe_is_the_same_one_with_less_work() -> None:
    for recipe in RECIPES[:2]:
        small = recipe.smaller()
        assert small.cross_entropy.epochs * small.cross_entropy.batches <= 40
        for less in (small.cross_entropy, small.fine_tuning, small.self_critical):
            assert less is None or less.warmup <= less.epochs * less.batches / 4  # or nothing is learnt at all
        for option in fields(TrainingOptions):
            if option.name not in ("epochs", "batches", "batch_size", "jitter", "warmup"):
                assert getattr(small.cross_entropy, option.name) == getattr(recipe.cross_entropy, option.name)
        assert asdict(small.defaults) == asdict(recipe.defaults)


def test_the_joint_curves_have_a_panel_for_each_stage_there_is(tmp_path: Path) -> None:
    epochs = range(1, 4)
    widths = []
    for name, keys in (
        ("cross-entropy", ("train_loss", "validation_loss")),
        ("fine-tuning", ("train_loss", "validation_loss")),
        ("self-critical", ("train_reward", "validation_cider")),
    ):
        (tmp_path / name).mkdir()
        history = [{"epoch": epoch} | {key: 1 / epoch + i for i, key in enumerate(keys)} for epoch in epochs]
        (tmp_path / name / "history.json").write_text(json.dumps(history))
        widths.append(Image.open(io.BytesIO(draw_stages(tmp_path))).width)
    assert widths == [500, 1000, 1500]
