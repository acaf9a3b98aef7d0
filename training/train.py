"""The training command: python -m training.train --data FOLDER --encoder NAME --output runs/x.

Owns the run's folder and what is printed; the work is in trainer, report and their neighbours.
"""

import argparse
import json
import shutil
import sys
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import torch
from torch.utils.tensorboard import SummaryWriter

from engine.vocabulary import Vocabulary
from training import checkpoint
from training.batches import CaptionTable
from training.charts import draw_curves
from training.checkpoint import CheckpointError, write_atomically, write_json
from training.data import DataError, Dataset
from training.distributed import DeviceError, Processes, processes
from training.encoders import EncoderError
from training.loop import TrainingError
from training.material import Source, prepare
from training.options import TrainingOptions
from training.report import greedy_captions, predictions_table, spread, write_report
from training.trainer import Epoch, Trainer

HISTORY, CURVE, PREDICTIONS, REPORT, CURVES_LOG = (
    "history.json",
    "curve.png",
    "predictions.txt",
    "report.html",
    "tensorboard",
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns 0, 1 for a named error, 2 for unusable options, 130 after Ctrl-C."""
    parser = _parser()
    given = parser.parse_args(arguments)
    try:
        options = TrainingOptions(**{option.name: getattr(given, option.name) for option in fields(TrainingOptions)})
    except ValueError as error:
        parser.error(str(error))
    for name in ("threads", "photographs"):
        if getattr(given, name) < 0:
            parser.error(f"--{name} must be at least 0, but it is {getattr(given, name)}")
    if given.threads:
        torch.set_num_threads(given.threads)
    try:
        with processes(given.device) as together:
            _run(given, options, together)
    except KeyboardInterrupt:
        how = ", --resume in place of --overwrite" if given.overwrite else " and --resume"
        print(f"\ninterrupted: continue with the same command{how if given.begun else ''}", file=sys.stderr)
        return 130
    except (CheckpointError, DataError, DeviceError, EncoderError, TrainingError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m training.train",
        description="Trains a caption decoder on the features of a frozen image encoder.",
        epilog="Several processes: torchrun --nproc-per-node=N -m training.train with the same options.",
    )
    parser.add_argument("--data", type=Path, required=True, help="COCO 2014 or Flickr8k folder")
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
    parser.add_argument("--from", type=Path, dest="begins", help="run whose best decoder this one begins with")
    parser.add_argument("--photographs", type=int, default=24, help="photographs in the report (default: 24)")
    group = parser.add_argument_group("what makes the run; kept in config.json")
    for option in fields(TrainingOptions):
        default: Any = option.default
        name, text = f"--{option.name.replace('_', '-')}", option.metadata["help"]
        if isinstance(default, bool):
            group.add_argument(name, action="store_true", help=text)
        else:
            group.add_argument(name, type=type(default), default=default, help=f"{text} (default: {default})")
    return parser


def _run(given: argparse.Namespace, options: TrainingOptions, together: Processes) -> None:
    output: Path = given.output
    if together.first:
        _check_output(output, resume=given.resume, overwrite=given.overwrite)
    together.wait()
    source = Source(given.data, given.features or output.parent / "features", given.strict)
    material = prepare(source, options, together)
    vocabulary = Vocabulary.build(
        (text for example in material.train.examples for text in example.captions), options.min_count
    )
    train = CaptionTable.build(material.train.examples, material.train_views, vocabulary, options.max_words)
    validation = CaptionTable.build(
        material.validation.examples, [material.validation_features], vocabulary, options.max_words
    )
    sizes = options.sizes(
        feature_size=material.encoder["feature_size"], vocabulary_size=len(vocabulary), pad_id=vocabulary.pad_id
    )
    data = {
        "images": {"train": len(train.names), "val": len(validation.names)},
        "captions": {"train": len(train.tokens), "val": len(validation.tokens)},
        "sha256": {"train": train.sha256, "val": validation.sha256},
    }
    config = checkpoint.describe_run(sizes, material.encoder, asdict(options)) | {"data": data}
    torch.manual_seed(options.seed)
    decoder = material.decoder(sizes)
    if given.begins is not None:
        fingerprint = material.encoder["fingerprint"]
        config["from"] = checkpoint.begin_with(decoder, vocabulary, fingerprint, given.begins)
    resuming = given.resume and (output / checkpoint.LAST).is_file()
    if resuming:
        _check_same_run(output, options, config)
    trainer = Trainer(decoder, options, train, validation, together)
    if resuming:
        trainer.resume(output)
    together.wait()  # nobody reads the folder any more
    if not together.first:
        for _ in trainer.train(output):
            pass
        return
    if given.overwrite and output.is_dir():  # only now is it sure that another run can take its place
        shutil.rmtree(output)
    output.mkdir(parents=True, exist_ok=True)
    write_json(output / checkpoint.CONFIG, config)
    given.begun = True
    vocabulary.save(output / checkpoint.VOCABULARY)
    _announce(trainer, vocabulary)
    _train_and_write(trainer, vocabulary, output)
    _finish(trainer, vocabulary, material.validation, output, given.photographs)


def _check_output(output: Path, *, resume: bool, overwrite: bool) -> None:
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


def _check_same_run(output: Path, options: TrainingOptions, config: dict[str, Any]) -> None:
    """Raises CheckpointError naming what differs between the run in the folder and the one asked for."""
    try:
        earlier = json.loads((output / checkpoint.CONFIG).read_text(encoding="utf-8"))
        differences = options.differences(earlier["training"])
        differences += [f"the {part} differs" for part in ("data", "encoder") if earlier[part] != config[part]]
        if earlier.get("from") != config.get("from"):
            differences.append("the run that it begins with differs")
    except (OSError, ValueError, KeyError) as error:
        raise CheckpointError(f"{output / checkpoint.CONFIG} is unreadable: {error!r}") from error
    if differences:
        raise CheckpointError(
            f"{output} holds another run, which cannot be resumed with these options: {'; '.join(differences)}"
        )


def _announce(trainer: Trainer, vocabulary: Vocabulary) -> None:
    parameters = sum(parameter.numel() for parameter in trainer.decoder.parameters())
    print(
        f"{len(trainer.train_table.names):,} training and {len(trainer.validation_table.names):,} validation images, "
        f"{len(vocabulary):,} words, {parameters:,} parameters, {trainer.processes.size} process(es) on "
        f"{trainer.processes.device}, epochs done: {len(trainer.history)}"
    )


def _train_and_write(trainer: Trainer, vocabulary: Vocabulary, output: Path) -> None:
    """Trains to the end; after each epoch prints a line and writes history, curve, predictions and TensorBoard."""
    steps_done = len(trainer.history) * trainer.options.batches
    with SummaryWriter(str(output / CURVES_LOG), purge_step=steps_done + 1 if steps_done else None) as board:

        def watch(step: int, loss: float, rate: float) -> None:
            board.add_scalar("batch/loss", loss, step)
            board.add_scalar("batch/learning_rate", rate, step)

        for epoch in trainer.train(output, watch):
            print(_line(epoch, trainer), flush=True)
            table = predictions_table(trainer.averaged, vocabulary, trainer.validation_table)
            print(table, flush=True)
            for kind in ("loss", "accuracy"):
                for split in ("train", "validation"):
                    value = getattr(epoch, f"{split}_{kind}")
                    board.add_scalar(f"epoch/{split}_{kind}", value, epoch.epoch * trainer.options.batches)
            _write_history(trainer, output)
            with (output / PREDICTIONS).open("a", encoding="utf-8") as file:
                file.write(f"epoch {epoch.epoch}\n{table}\n")


def _write_history(trainer: Trainer, output: Path) -> None:
    write_json(output / HISTORY, [asdict(epoch) for epoch in trainer.history])
    write_atomically(output / CURVE, draw_curves(trainer.history))


def _line(epoch: Epoch, trainer: Trainer) -> str:
    best = "  best so far" if trainer.best is epoch else ""
    return (
        f"epoch {epoch.epoch:3}  loss {epoch.train_loss:.4f}  accuracy {epoch.train_accuracy:.1%}  |  validation loss "
        f"{epoch.validation_loss:.4f}  accuracy {epoch.validation_accuracy:.1%}  |  {epoch.seconds:.0f} s{best}"
    )


def _finish(trainer: Trainer, vocabulary: Vocabulary, dataset: Dataset, output: Path, photographs: int) -> None:
    """Writes the report of the best checkpoint, whose weights the trainer then has."""
    _write_history(trainer, output)  # a kill may have come between a checkpoint and its history
    checkpoint.restore_decoder(trainer.averaged, checkpoint.load_tensors(output / checkpoint.BEST)[0])
    table = trainer.validation_table
    chosen = spread(len(table.names), photographs)
    captions = greedy_captions(trainer.averaged, vocabulary, table.features_of(chosen), trainer.options.max_words)
    shown = [(table.names[i], text, table.captions[i]) for i, text in zip(chosen, captions, strict=True)]
    page = write_report(f"Run {output.name}", trainer.history, draw_curves(trainer.history), shown, dataset.read)
    write_atomically(output / REPORT, page.encode())
    assert trainer.best is not None
    print(
        f"done: {len(trainer.history)} epochs, best is {trainer.best.epoch} with validation loss "
        f"{trainer.best.validation_loss:.4f}; see {output / REPORT}"
    )


if __name__ == "__main__":
    sys.exit(main())
