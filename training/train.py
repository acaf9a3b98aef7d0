"""The training command: python -m training.train --data FOLDER --encoder NAME --output runs/x.

Owns the run's folder and the printed output; the work is in training.loops.cross_entropy and training.reports.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch

from engine.bundle.vocabulary import Vocabulary
from engine.commands.parser import Parser, existing_folder, whole
from training import command
from training.command import build_vocabulary, each_source, make_tables, read_options
from training.data.mixture import Mixture
from training.files import write_atomically
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
    parser = command_line()
    given = parser.parse_args(arguments)
    options = read_options(parser, given, TrainingOptions)
    return command.execute(given, lambda together: run_together(given, options, together))


def command_line() -> Parser:
    """Returns the parser of the command."""
    parser = Parser(
        prog="python -m training.train",
        description="Trains a caption decoder on the features of an image encoder, and optionally the encoder too.",
        epilog="Several processes: torchrun --nproc-per-node=N -m training.train with the same options.",
    )
    command.add_run_arguments(parser)
    parser.add_argument(
        "--from",
        type=existing_folder("the folder of a run"),
        dest="begins",
        help="run whose best decoder and vocabulary to start from",
    )
    parser.add_argument("--photographs", type=whole(0), default=24, help="photographs in the report (default: 24)")
    command.add_options(parser, TrainingOptions)
    return parser


def run_together(given: argparse.Namespace, options: TrainingOptions, together: Processes) -> None:
    """Does a run in one of the processes that train together. Raises what `execute` names."""
    output: Path = given.output
    command.check_output(output, resume=given.resume, overwrite=given.overwrite)
    together.wait()  # no process writes before all have checked
    before = None if given.begins is None else checkpoint.load_checkpoint(given.begins)
    run_data = prepare(command.read_source(given), options, together)
    # a decoder keeps its vocabulary, whatever the new data
    vocabulary = build_vocabulary(run_data, options) if before is None else before.vocabulary
    train, validation, data = make_tables(run_data, vocabulary, options.max_words, options.seed)
    sizes = options.sizes(shape=run_data.shape, vocabulary_size=len(vocabulary), pad_id=vocabulary.pad_id)
    config = checkpoint.describe_run(sizes, run_data.encoder, asdict(options)) | {"data": data}
    torch.manual_seed(options.seed)
    decoder = run_data.decoder(sizes)
    if before is not None:
        config["from"] = checkpoint.begin_with(decoder, before, run_data.encoder["fingerprint"], given.begins)
    learned = before is not None and run_data.tail is None and (given.begins / checkpoint.ENCODER).is_file()
    if learned:  # in the earlier run; now saved with this run
        config["encoder"] = run_data.encoder | {"weights": checkpoint.ENCODER}
    trainer = Trainer(decoder, options, train, validation, together)
    command.resume(given, trainer, "training", options, config)
    together.wait()  # no process reads the folder any more
    if not together.first:
        for _ in trainer.train(output):
            pass
        return
    command.begin(given, config, vocabulary, given.begins if learned else None)
    _announce(trainer, vocabulary, data["images"])

    def describe(epoch: Epoch) -> tuple[str, str]:
        return _line(epoch), predictions_table(trainer.averaged, vocabulary, validation)

    curves = "train_loss", "train_accuracy", "validation_loss", "validation_accuracy"
    command.train(trainer, output, curves, draw_curves, describe)
    _finish(trainer, vocabulary, run_data.validation, output, given.photographs)


def _announce(trainer: Trainer, vocabulary: Vocabulary, images: dict[str, int]) -> None:
    parameters = sum(parameter.numel() for parameter in trainer.decoder.parameters())
    print(
        f"{images['train']:,} training and {images['val']:,} validation images, "
        f"{len(vocabulary):,} words, {parameters:,} parameters, {trainer.processes.size} process(es) on "
        f"{trainer.processes.device}, epochs done: {len(trainer.history)}"
    )


def _line(epoch: Epoch) -> str:
    return (
        f"epoch {epoch.epoch:3}  loss {epoch.train_loss:.4f}  accuracy {epoch.train_accuracy:.1%}  |  validation loss "
        f"{epoch.validation_loss:.4f}{each_source(epoch)}  accuracy {epoch.validation_accuracy:.1%}"
    )


def _finish(trainer: Trainer, vocabulary: Vocabulary, dataset: Mixture, output: Path, photographs: int) -> None:
    """Loads the best checkpoint's weights into the trainer and writes its report."""
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
