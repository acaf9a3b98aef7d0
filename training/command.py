"""What the commands that train have in common: their options, the run's folder, how they end. Knows no training."""

import argparse
import json
import shutil
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

import torch

from engine.bundle.vocabulary import Vocabulary
from training.data.batches import CaptionTable
from training.data.datasets import DataError
from training.data.mixture import JoinedFeatures, Part
from training.data.text_features import text_features
from training.loops.distributed import DeviceError, Processes, processes
from training.loops.loop import Record, TrainingError
from training.loops.run_data import RunData, Source
from training.models import checkpoint
from training.models.checkpoint import CheckpointError, write_json
from training.models.encoders import EncoderError
from training.options import LoopOptions, TrainingOptions
from training.outcome import outcome

HISTORY, CURVE, PREDICTIONS, CURVES_LOG = "history.json", "curve.png", "predictions.txt", "tensorboard"

Kind = TypeVar("Kind", bound=LoopOptions)


def add_run_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds what says where a run's data and files lie and where it is computed."""
    parser.add_argument(
        "--data",
        type=part,
        required=True,
        action="append",
        metavar="FOLDER[=WEIGHT]",
        help="COCO 2014 or Flickr8k folder; may be given several times, each with how often it is drawn beside the "
        "others (default: as often as it has photographs)",
    )
    parser.add_argument(
        "--sentences",
        type=part,
        default=[],
        action="append",
        metavar="FILE[=WEIGHT]",
        help="captions of photographs that are not here, JSON lines, to learn words and sentences from; weights as of "
        "--data, 0: for the vocabulary and the rarity of words only",
    )
    parser.add_argument("--output", type=Path, required=True, help="folder of this run, such as runs/first")
    parser.add_argument("--features", type=Path, help="folder that keeps features (default: features beside OUTPUT)")
    parser.set_defaults(begun=False)  # whether OUTPUT holds this run yet
    earlier = parser.add_mutually_exclusive_group()
    earlier.add_argument("--resume", action="store_true", help="go on with the run in OUTPUT")
    earlier.add_argument("--overwrite", action="store_true", help="delete the run in OUTPUT before training begins")
    parser.add_argument("--strict", action="store_true", help="any fault of the data is an error")
    parser.add_argument(
        "--device", choices=("auto", "cpu", "cuda"), default="auto", help="auto: a GPU where there is one"
    )
    parser.add_argument("--threads", type=int, default=0, help="CPU threads (default: PyTorch's)")


def add_options(parser: argparse.ArgumentParser, kind: type[LoopOptions]) -> None:
    """Adds an argument for each of the options that make a run."""
    group = parser.add_argument_group("what makes the run; kept in config.json")
    for option in fields(kind):
        default: Any = option.default
        name, text = f"--{option.name.replace('_', '-')}", option.metadata["help"]
        if isinstance(default, bool):
            shown = f"{text} (default: {'yes' if default else 'no'})"
            group.add_argument(name, action=argparse.BooleanOptionalAction, default=default, help=shown)
        else:
            group.add_argument(name, type=type(default), default=default, help=f"{text} (default: {default})")


def read_options(parser: argparse.ArgumentParser, given: argparse.Namespace, kind: type[Kind]) -> Kind:
    """Returns the options that were given; ends the program with one sentence where they make no sense."""
    for name in ("threads", "photographs"):
        if getattr(given, name, 0) < 0:
            parser.error(f"--{name} must be at least 0, but it is {getattr(given, name)}")
    try:
        return kind(**{option.name: getattr(given, option.name) for option in fields(kind)})
    except ValueError as error:
        parser.error(str(error))


def execute(given: argparse.Namespace, work: Callable[[Processes], None]) -> int:
    """Does the work and returns the exit status: 0, 1 for a named error, 130 after Ctrl-C."""
    if given.threads:
        torch.set_num_threads(given.threads)

    def run() -> None:
        with processes(given.device) as together:
            work(together)

    def interrupted() -> str:
        how = ", --resume in place of --overwrite" if given.overwrite else " and --resume"
        return f"continue with the same command{how if given.begun else ''}"

    named = CheckpointError, DataError, DeviceError, EncoderError, TrainingError
    return outcome(run, *named, interrupted=interrupted)


def part(text: str) -> Part:
    """Reads FOLDER[=WEIGHT] for argparse, whose error says what is wrong with it."""
    try:
        return Part.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def read_source(given: argparse.Namespace) -> Source:
    """Returns where the data and features of a run are, as the command line says."""
    features = given.features or given.output.parent / "features"
    return Source(tuple(given.data), features, given.strict, tuple(given.sentences))


def build_vocabulary(run_data: RunData, options: TrainingOptions) -> Vocabulary:
    """Returns the words that captions of the training images hold often enough, and those that sentences do."""
    parts = ((run_data.train.examples, options.min_count), (run_data.sentences, options.sentence_min_count))
    words = {
        word
        for examples, least in parts
        for word in Vocabulary.build((text for each in examples for text in each.captions), least).words
    }
    return Vocabulary(tuple(sorted(words)))


def make_tables(
    run_data: RunData, vocabulary: Vocabulary, max_words: int, seed: int
) -> tuple[CaptionTable, CaptionTable, dict[str, Any]]:
    """Returns the caption tables of training and validation, and what config.json says of them.

    Sentences stand behind the images that are trained on, with features made of their words, drawn by the seed.
    """
    examples, views = run_data.train.examples, run_data.train_views
    if run_data.sentences:
        made = text_features(run_data.sentences, examples, views, vocabulary, seed=seed)
        views = tuple(JoinedFeatures([("", view), ("", words)]) for view, words in zip(views, made, strict=True))
    train = CaptionTable.build((*examples, *run_data.sentences), views, vocabulary, max_words, run_data.weights)
    seen = [run_data.validation_features]
    validation = CaptionTable.build(run_data.validation.examples, seen, vocabulary, max_words)
    images = len(train.names) - len(run_data.sentences)
    described: dict[str, Any] = {
        "images": {"train": images, "val": len(validation.names)},
        "captions": {"train": int(train.offsets[images]), "val": len(validation.tokens)},
        "sha256": {"train": train.sha256, "val": validation.sha256},
    }
    if run_data.sentences:
        described["sentences"] = len(train.tokens) - described["captions"]["train"]
    if len(shares := train.shares) > 1:
        described["drawn"] = shares
    return train, validation, described


def check_output(output: Path, *, resume: bool, overwrite: bool) -> None:
    """Raises CheckpointError saying what stands in the way of a run in the folder; changes nothing."""
    if output.exists() and not output.is_dir():
        raise CheckpointError(f"{output} is a file, and a run needs a folder: name another one")
    taken = output.is_dir() and any(output.iterdir())
    if taken and overwrite:
        if not (output / checkpoint.CONFIG).is_file():
            raise CheckpointError(f"{output} is not a run's folder (no {checkpoint.CONFIG}), so it is not deleted")
    elif taken and not resume:
        raise CheckpointError(f"{output} is not empty: go on with it by --resume or delete it by --overwrite")
    elif resume and not taken:
        raise CheckpointError(f"{output} has no run to resume: leave --resume out to begin one")


def check_same_run(output: Path, part: str, options: LoopOptions, config: dict[str, Any]) -> None:
    """Raises CheckpointError naming what differs between the run in the folder and the one asked for.

    `part` is where config.json keeps the options: "training" or "scst".
    """
    try:
        earlier = json.loads((output / checkpoint.CONFIG).read_text(encoding="utf-8"))
        differences = options.differences(earlier[part])
        differences += [f"the {name} differs" for name in ("data", "encoder") if earlier[name] != config[name]]
        if any(earlier.get("from", {}).get(key) != config.get("from", {}).get(key) for key in ("run", "sha256")):
            differences.append("the run that it begins with differs")
    except (OSError, ValueError, KeyError) as error:
        raise CheckpointError(f"{output / checkpoint.CONFIG} is unreadable: {error!r}") from error
    if differences:
        raise CheckpointError(
            f"{output} holds another run, which cannot be resumed with these options: {'; '.join(differences)}"
        )


def begin(given: argparse.Namespace, config: dict[str, Any], vocabulary: Vocabulary) -> None:
    """Writes what a run's folder holds from the start, in the place of an earlier run where that is to go."""
    output: Path = given.output
    if given.overwrite and output.is_dir():  # only now is it sure that another run can take its place
        shutil.rmtree(output)
    output.mkdir(parents=True, exist_ok=True)
    write_json(output / checkpoint.CONFIG, config)
    given.begun = True
    vocabulary.save(output / checkpoint.VOCABULARY)


def each_source(epoch: Record) -> str:
    """Returns what validation came to on each data set, in brackets; nothing where there is one."""
    each = ", ".join(f"{source} {value:.4f}" for source, value in epoch.by_source.items())
    return f" ({each})" if each else ""
