"""Shared parts of the training commands: options, the run's folder, what is printed and written, exit status."""

import argparse
import json
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch.utils.tensorboard import SummaryWriter

from engine.bundle.vocabulary import Vocabulary
from engine.commands.parser import whole
from engine.errors import BundleError
from training.data.batches import CaptionTable
from training.data.datasets import DataError
from training.data.mixture import JoinedFeatures, Part
from training.data.text_features import text_features
from training.files import write_atomically, write_json
from training.loops.distributed import DeviceError, Processes, processes
from training.loops.loop import Loop, R, Record, TrainingError
from training.loops.run_data import RunData, Source
from training.models import checkpoint
from training.models.checkpoint import CheckpointError
from training.models.encoders import EncoderError
from training.options import LoopOptions, TrainingOptions
from training.outcome import outcome

CURVE = "curve.png"

Kind = TypeVar("Kind", bound=LoopOptions)


def add_run_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options for a run's data, files and device."""
    parser.add_argument(
        "--data",
        type=part,
        required=True,
        action="append",
        metavar="FOLDER[=WEIGHT]",
        help="COCO 2014 or Flickr8k folder; can be repeated, each with a weight: how often it is drawn relative to the "
        "others (default: its number of photographs)",
    )
    parser.add_argument(
        "--sentences",
        type=part,
        default=[],
        action="append",
        metavar="FILE[=WEIGHT]",
        help="captions without photographs, as JSON lines, to learn words and sentences from; weights as for "
        "--data, 0: use them only for the vocabulary and word frequencies",
    )
    parser.add_argument("--output", type=Path, required=True, help="folder of this run, such as runs/first")
    parser.add_argument("--features", type=Path, help="folder to store features in (default: features beside OUTPUT)")
    parser.set_defaults(begun=False)  # whether OUTPUT contains this run yet
    earlier = parser.add_mutually_exclusive_group()
    earlier.add_argument("--resume", action="store_true", help="continue the run in OUTPUT")
    earlier.add_argument("--overwrite", action="store_true", help="delete the run in OUTPUT before training begins")
    parser.add_argument("--strict", action="store_true", help="treat any problem in the data as an error")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="auto: a GPU if there is one")
    parser.add_argument("--threads", type=whole(0), default=0, help="CPU threads (default: PyTorch's)")


def add_options(parser: argparse.ArgumentParser, kind: type[LoopOptions]) -> None:
    """Adds an argument for each training option."""
    group = parser.add_argument_group("training options, saved in config.json")
    for option in fields(kind):
        default: Any = option.default
        name, text = f"--{option.name.replace('_', '-')}", option.metadata["help"]
        if isinstance(default, bool):
            shown = f"{text} (default: {'yes' if default else 'no'})"
            group.add_argument(name, action=argparse.BooleanOptionalAction, default=default, help=shown)
        else:
            group.add_argument(name, type=type(default), default=default, help=f"{text} (default: {default})")


def read_options(parser: argparse.ArgumentParser, given: argparse.Namespace, kind: type[Kind]) -> Kind:
    """Returns the options; ends the program with a one-sentence error if any is invalid."""
    try:
        return kind(**{option.name: getattr(given, option.name) for option in fields(kind)})
    except ValueError as error:
        rule, but, given_value = str(error).partition(", but ")
        flags = re.sub(r"^\w+|\w+_\w+", lambda name: f"--{name[0].replace('_', '-')}", rule)
        parser.error(f"{flags}{but}{given_value}")


def execute(given: argparse.Namespace, work: Callable[[Processes], None]) -> int:
    """Does the work and returns the exit status: 0, 1 for a named error, 130 after Ctrl-C."""
    if given.threads:
        torch.set_num_threads(given.threads)

    def run() -> None:
        with processes(given.device) as together:
            work(together)

    def interrupted() -> str:
        how = ", with --resume instead of --overwrite" if given.overwrite else " and --resume"
        return f"continue with the same command{how if given.begun else ''}"

    named = BundleError, CheckpointError, DataError, DeviceError, EncoderError, TrainingError
    return outcome(run, *named, interrupted=interrupted)


def part(text: str) -> Part:
    """Parses FOLDER[=WEIGHT] for argparse."""
    try:
        return Part.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def read_source(given: argparse.Namespace) -> Source:
    """Returns the locations of a run's data and features from the command line."""
    features = given.features or given.output.parent / "features"
    return Source(tuple(given.data), features, given.strict, tuple(given.sentences))


def build_vocabulary(run_data: RunData, options: TrainingOptions) -> Vocabulary:
    """Returns the words that are frequent enough in the training captions or in the sentences."""
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
    """Returns the caption tables of training and validation, and their entry in config.json.

    Sentences follow the training images, with features made from their words, drawn by the seed.
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
    """Raises CheckpointError if the folder cannot be used for this run; changes nothing."""
    if output.exists() and not output.is_dir():
        raise CheckpointError(f"{output} is a file, but a run needs a folder: choose another --output")
    taken = output.is_dir() and any(output.iterdir())
    if taken and overwrite:
        if not (output / checkpoint.CONFIG).is_file():
            raise CheckpointError(f"{output} is not a run's folder (no {checkpoint.CONFIG}), so it is not deleted")
    elif taken and not resume:
        raise CheckpointError(f"{output} is not empty: continue its run with --resume, or delete it with --overwrite")
    elif resume and not taken:
        raise CheckpointError(f"{output} contains no run to resume: leave out --resume to start one")


def check_same_run(output: Path, part: str, options: LoopOptions, config: dict[str, Any]) -> None:
    """Raises CheckpointError, naming the differences, if the run in the folder is another than the requested one.

    `part` is where config.json keeps the options: "training" or "scst".
    """
    try:
        earlier = json.loads((output / checkpoint.CONFIG).read_text(encoding="utf-8"))
        differences = options.differences(earlier[part])
        differences += [f"the {name} differs" for name in ("data", "encoder") if earlier[name] != config[name]]
        if any(earlier.get("from", {}).get(key) != config.get("from", {}).get(key) for key in ("run", "sha256")):
            differences.append("the --from run differs")
    except (OSError, ValueError, KeyError) as error:
        raise CheckpointError(f"{output / checkpoint.CONFIG} is unreadable: {error!r}") from error
    if differences:
        raise CheckpointError(
            f"{output} contains a different run, which cannot be resumed with these options: {'; '.join(differences)}"
        )


def resume(given: argparse.Namespace, loop: Loop[R], part: str, options: LoopOptions, config: dict[str, Any]) -> bool:
    """Continues the run in the folder if that was requested and it has a checkpoint; returns whether it did.

    `part` as for check_same_run. Raises CheckpointError.
    """
    resuming = given.resume and (given.output / checkpoint.LAST).is_file()
    if resuming:
        check_same_run(given.output, part, options, config)
        loop.resume(given.output)
    return bool(resuming)


def begin(
    given: argparse.Namespace, config: dict[str, Any], vocabulary: Vocabulary, learned: Path | None = None
) -> None:
    """Writes the initial files of a run's folder, after deleting an earlier run if that was requested.

    learned: a folder that may contain the encoder that was trained in an earlier run; it is saved with this run too.
    """
    output: Path = given.output
    if given.overwrite and output.is_dir():  # only now is it certain that the new run can start
        shutil.rmtree(output)
    output.mkdir(parents=True, exist_ok=True)
    write_json(output / checkpoint.CONFIG, config)
    given.begun = True
    vocabulary.save(output / checkpoint.VOCABULARY)
    if learned is not None and (learned / checkpoint.ENCODER).is_file():
        shutil.copyfile(learned / checkpoint.ENCODER, output / checkpoint.ENCODER)


def train(
    loop: Loop[R],
    output: Path,
    curves: Sequence[str],
    draw: Callable[[Sequence[R]], bytes],
    describe: Callable[[R], tuple[str, str]],
) -> None:
    """Trains to the end; after each epoch prints a line and writes history, curve, predictions and TensorBoard.

    curves: names of an epoch's numbers for TensorBoard. draw: returns a PNG of the history. describe: returns a line
    about an epoch, and some predictions.
    """
    steps_done = len(loop.history) * loop.batches
    with SummaryWriter(str(output / "tensorboard"), purge_step=steps_done + 1 if steps_done else None) as board:

        def watch(step: int, value: float, rate: float) -> None:
            board.add_scalar(f"batch/{loop.shown}", value, step)
            board.add_scalar("batch/learning_rate", rate, step)

        def write_history() -> None:
            write_json(output / "history.json", [asdict(epoch) for epoch in loop.history])
            write_atomically(output / CURVE, draw(loop.history))

        if loop.history:  # in case of a kill between a checkpoint and its history
            write_history()
        for epoch in loop.train(output, watch):
            line, predictions = describe(epoch)
            best = "  best so far" if loop.best is epoch else ""
            print(f"{line}  |  {epoch.seconds:.0f} s{best}\n{predictions}", flush=True)
            for name in curves:
                board.add_scalar(f"epoch/{name}", getattr(epoch, name), epoch.epoch * loop.batches)
            write_history()
            with (output / "predictions.txt").open("a", encoding="utf-8") as file:
                file.write(f"epoch {epoch.epoch}\n{predictions}\n")


def each_source(epoch: Record) -> str:
    """Returns the validation result of each data set, in brackets; "" if there is only one."""
    each = ", ".join(f"{source} {value:.4f}" for source, value in epoch.by_source.items())
    return f" ({each})" if each else ""
