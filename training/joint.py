"""The command python -m training.joint --bundle BUNDLE --data FOLDER --output runs/joint.

Trains a space in which a text and the photographs that it describes are close, on the features of a bundle's encoder;
`python -m export.to_onnx --joint` adds it to the bundle. Owns the run's folder and the printed output; the work is in
training.loops.contrastive.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from engine.commands.parser import Parser, existing_folder
from training import command
from training.command import read_options
from training.data.batches import CaptionTable
from training.data.datasets import DataError
from training.data.paraphrases import Paraphrases
from training.loops.contrastive import JointEpoch, JointTrainer
from training.loops.distributed import Processes
from training.loops.run_data import RunData, prepare
from training.models.bundle_encoder import BundleEncoder
from training.models.joint import JointSizes, JointSpace, describe_run
from training.options import JointOptions, TrainingOptions
from training.reports.charts import draw_recalls

STANDARDISED_BY = 8192  # images at most


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns 0, 1 for a named error, 2 for unusable options, 130 after Ctrl-C."""
    parser = command_line()
    given = parser.parse_args(arguments)
    options = read_options(parser, given, JointOptions)
    return command.execute(given, lambda together: run(given, options, together))


def command_line() -> Parser:
    """Returns the parser of the command."""
    parser = Parser(
        prog="python -m training.joint",
        description="Trains a space for search: vectors of texts and of photographs that are close where they belong "
        "together.",
    )
    bundle = existing_folder("the folder of a bundle")
    parser.add_argument("--bundle", type=bundle, required=True, help="bundle whose encoder and words the space is for")
    command.add_run_arguments(parser)
    command.add_options(parser, JointOptions)
    return parser


def run(given: argparse.Namespace, options: JointOptions, together: Processes) -> None:
    """Does a run. Raises what `execute` names."""
    output: Path = given.output
    command.check_output(output, resume=given.resume, overwrite=given.overwrite)
    encoder = BundleEncoder(given.bundle)
    vocabulary = encoder.vocabulary
    of_encoder = TrainingOptions(
        encoder=encoder.name, encoder_weights=encoder.weights, flip=options.flip, jitter=options.jitter
    )
    run_data = prepare(command.read_source(given), of_encoder, together, encoder)
    try:
        train, validation = (
            CaptionTable.build(examples, views, vocabulary, options.max_words, weights)
            for examples, views, weights in (
                (run_data.train.examples, run_data.train_views, run_data.weights),
                (run_data.validation.examples, [run_data.validation_features], None),
            )
        )
        sentences = Paraphrases.build(run_data.sentences, vocabulary, options.max_words) if run_data.sentences else None
    except ValueError as error:  # a vocabulary in which no word stands for unknown ones
        raise error if isinstance(error, DataError) else DataError(str(error)) from error
    sizes = JointSizes(encoder.output_shape, len(vocabulary), options.embedding, options.hidden, options.size)
    torch.manual_seed(options.seed)
    space = JointSpace(sizes, word_dropout=options.word_dropout, feature_dropout=options.feature_dropout)
    some = np.linspace(0, len(train.names) - 1, min(len(train.names), STANDARDISED_BY)).astype(np.int64)
    space.images.standardise(torch.from_numpy(train.features_of(some)))
    config = describe_run(sizes, run_data.encoder, asdict(options)) | {"data": _described(run_data, train, sentences)}
    trainer = JointTrainer(space, options, train, validation, sentences, together)
    command.resume(given, trainer, "training", options, config)
    command.begin(given, config, vocabulary)
    parameters = sum(parameter.numel() for parameter in space.parameters())
    print(
        f"{len(train.names):,} training and {len(validation.names):,} validation images, {parameters:,} parameters, "
        f"{trainer.batches} batches an epoch, epochs done: {len(trainer.history)}"
    )
    curves = "train_loss", "recall_1", "recall_5", "recall_10", "text_recall_1", "text_recall_10"
    command.train(trainer, output, curves, draw_recalls, lambda epoch: (_line(epoch), _table(epoch)))
    assert trainer.best is not None
    print(f"done: {len(trainer.history)} epochs, best is {trainer.best.epoch}; see {output / command.CURVE}")


def _described(run_data: RunData, train: CaptionTable, sentences: Paraphrases | None) -> dict[str, object]:
    """Returns what was trained on, for config.json."""
    used = 0 if sentences is None else len(sentences.tokens)
    return {
        "names": sorted({each.source for each in run_data.train.examples}),
        "images": {"train": len(train.names), "val": len(run_data.validation.examples)},
        "captions": len(train.tokens),
        "sentences": used,
        "sha256": train.sha256,
    }


def _line(epoch: JointEpoch) -> str:
    return (
        f"epoch {epoch.epoch:3}  loss {epoch.train_loss:.4f}  |  recall of images by texts "
        f"{epoch.recall_1:.1%} {epoch.recall_5:.1%} {epoch.recall_10:.1%}, of texts by images "
        f"{epoch.text_recall_1:.1%} {epoch.text_recall_10:.1%}"
    )


def _table(epoch: JointEpoch) -> str:
    """Returns the recalls of each data set as text."""
    lines = [
        f"  {source or 'validation list'}, {side} found: R@1 {found['at_1']:.1%}, R@5 {found['at_5']:.1%}, "
        f"R@10 {found['at_10']:.1%}, median rank {found['median_rank']:g}"
        for source, sides in epoch.found.items()
        for side, found in sides.items()
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
