"""The training command: python -m training.train --data FOLDER --encoder NAME --output runs/x.

Owns the run's folder and the printed output; the work is in training.loops.cross_entropy and training.reports.
"""

import argparse
import shutil
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from torch.utils.tensorboard import SummaryWriter

from engine.bundle.vocabulary import Vocabulary
from training.command import (
    CURVE,
    CURVES_LOG,
    HISTORY,
    PREDICTIONS,
    add_options,
    add_run_arguments,
    begin,
    build_vocabulary,
    check_output,
    check_same_run,
    each_source,
    execute,
    make_tables,
    read_options,
    read_source,
)
from training.data.mixture import Mixture
from training.files import write_atomically, write_json
from training.loops.cross_entropy import Epoch, Trainer
from training.loops.distributed import Processes
from training.loops.run_data import prepare
from training.loops.sampler import greedy_captions
from training.models import checkpoint
from training.options import TrainingOptions
from training.reports.charts import draw_curves
from training.reports.training_report import predictions_table, spread, write_report

REPORT = "report.html"


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns 0, 1 for a named error, 2 for unusable options, 130 after Ctrl-C."""
    parser = _parser()
    given = parser.parse_args(arguments)
    options = read_options(parser, given, TrainingOptions)
    return execute(given, lambda together: _run(given, options, together))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m training.train",
        description="Trains a caption decoder on the features of an image encoder, and optionally the encoder too.",
        epilog="Several processes: torchrun --nproc-per-node=N -m training.train with the same options.",
    )
    add_run_arguments(parser)
    parser.add_argument("--from", type=Path, dest="begins", help="run whose best decoder and vocabulary to start from")
    parser.add_argument("--photographs", type=int, default=24, help="photographs in the report (default: 24)")
    add_options(parser, TrainingOptions)
    return parser


def _run(given: argparse.Namespace, options: TrainingOptions, together: Processes) -> None:
    output: Path = given.output
    check_output(output, resume=given.resume, overwrite=given.overwrite)
    together.wait()  # no process writes before all have checked
    before = None if given.begins is None else checkpoint.load_checkpoint(given.begins)
    run_data = prepare(read_source(given), options, together)
    # a decoder keeps its vocabulary, whatever the new data
    vocabulary = build_vocabulary(run_data, options) if before is None else before.vocabulary
    train, validation, data = make_tables(run_data, vocabulary, options.max_words, options.seed)
    sizes = options.sizes(
        feature_size=run_data.encoder["feature_size"], vocabulary_size=len(vocabulary), pad_id=vocabulary.pad_id
    )
    config = checkpoint.describe_run(sizes, run_data.encoder, asdict(options)) | {"data": data}
    torch.manual_seed(options.seed)
    decoder = run_data.decoder(sizes)
    if before is not None:
        config["from"] = checkpoint.begin_with(decoder, before, run_data.encoder["fingerprint"], given.begins)
    learned = before is not None and run_data.tail is None and (given.begins / checkpoint.ENCODER).is_file()
    if learned:  # in the earlier run; now saved with this run
        config["encoder"] = run_data.encoder | {"weights": checkpoint.ENCODER}
    resuming = given.resume and (output / checkpoint.LAST).is_file()
    if resuming:
        check_same_run(output, "training", options, config)
    trainer = Trainer(decoder, options, train, validation, together)
    if resuming:
        trainer.resume(output)
    together.wait()  # no process reads the folder any more
    if not together.first:
        for _ in trainer.train(output):
            pass
        return
    begin(given, config, vocabulary)
    if learned:
        shutil.copyfile(given.begins / checkpoint.ENCODER, output / checkpoint.ENCODER)
    _announce(trainer, vocabulary, data["images"])
    _train_and_write(trainer, vocabulary, output)
    _finish(trainer, vocabulary, run_data.validation, output, given.photographs)


def _announce(trainer: Trainer, vocabulary: Vocabulary, images: dict[str, int]) -> None:
    parameters = sum(parameter.numel() for parameter in trainer.decoder.parameters())
    print(
        f"{images['train']:,} training and {images['val']:,} validation images, "
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
        f"{epoch.validation_loss:.4f}{each_source(epoch)}  accuracy {epoch.validation_accuracy:.1%}  |  "
        f"{epoch.seconds:.0f} s{best}"
    )


def _finish(trainer: Trainer, vocabulary: Vocabulary, dataset: Mixture, output: Path, photographs: int) -> None:
    """Loads the best checkpoint's weights into the trainer and writes its report."""
    _write_history(trainer, output)  # in case of a kill between a checkpoint and its history
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
