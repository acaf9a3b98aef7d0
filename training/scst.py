"""The self-critical training command: python -m training.scst --from runs/x --output runs/y --data FOLDER.

Owns the run's folder and the printed output; the work is in training.loops.self_critical, reward and sampler.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path
from statistics import fmean

from engine.commands.parser import Parser, existing_folder
from training import command
from training.command import CURVE, each_source, make_tables, read_options
from training.loops.distributed import Processes
from training.loops.run_data import prepare
from training.loops.sampler import greedy_captions
from training.loops.self_critical import RewardEpoch, SelfCritic
from training.models import checkpoint
from training.models.checkpoint import Checkpoint, CheckpointError
from training.options import ScstOptions, TrainingOptions
from training.reports.charts import draw_rewards
from training.reports.training_report import spread

SHOWN = 3  # photographs whose captions are printed after an epoch


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns 0, 1 for a named error, 2 for unusable options, 130 after Ctrl-C."""
    parser = command_line()
    given = parser.parse_args(arguments)
    options = read_options(parser, given, ScstOptions)
    return command.execute(given, lambda together: run_together(given, options, together))


def command_line() -> Parser:
    """Returns the parser of the command."""
    parser = Parser(
        prog="python -m training.scst",
        description="Self-critical training: trains a decoder for a high expected CIDEr-D of its sampled captions.",
        epilog="Several processes: torchrun --nproc-per-node=N -m training.scst with the same options.",
    )
    parser.add_argument(
        "--from",
        type=existing_folder("the folder of a run"),
        required=True,
        dest="source",
        help="run whose best checkpoint to start from",
    )
    command.add_run_arguments(parser)
    command.add_options(parser, ScstOptions)
    return parser


def run_together(given: argparse.Namespace, options: ScstOptions, together: Processes) -> None:
    """Does a run in one of the processes that train together. Raises what `execute` names."""
    output: Path = given.output
    if output.resolve() == given.source.resolve():
        raise CheckpointError(f"{output} is the --from run itself: choose another --output")
    command.check_output(output, resume=given.resume, overwrite=given.overwrite)
    together.wait()  # no process writes before all have checked
    before = checkpoint.load_checkpoint(given.source)
    run_data = prepare(command.read_source(given), _encoder_options(before), together)
    if run_data.encoder["fingerprint"] != before.config["encoder"]["fingerprint"]:
        raise CheckpointError(
            f"the encoder weights have changed since {given.source} was trained: "
            f"restore the original {before.encoder_weights}"
        )
    train, validation, data = make_tables(run_data, before.vocabulary, options.max_words, options.seed)
    begun = checkpoint.begun_with(given.source, before)
    config = before.config | {"data": data, "scst": asdict(options), "from": begun}
    critic = SelfCritic(before.decoder, options, train, validation, together)
    resuming = command.resume(given, critic, "scst", options, config)
    # computed by all processes, printed by one
    earlier = "" if resuming else f", validation CIDEr {fmean(critic.validation_ciders().values()):.4f} before"
    together.wait()  # no process reads the folder any more
    if not together.first:
        for _ in critic.train(output):
            pass
        return
    command.begin(given, config, before.vocabulary, given.source)
    print(
        f"{data['images']['train']:,} training and {data['images']['val']:,} validation images, {options.samples} "
        f"sentences each, {together.size} process(es) on {together.device}, epochs done: {len(critic.history)}{earlier}"
    )
    shown = spread(len(validation.names), SHOWN)

    def describe(epoch: RewardEpoch) -> tuple[str, str]:
        features = validation.features_of(shown)
        texts = greedy_captions(critic.averaged, validation.vocabulary, features, options.max_words)
        said = "".join(f"  {validation.names[i]}  {text}\n" for i, text in zip(shown, texts, strict=True))
        return _line(epoch), said

    curves = "sample_reward", "train_reward", "validation_cider"
    command.train(critic, output, curves, draw_rewards, describe)
    best = critic.best
    assert best is not None
    print(
        f"done: {len(critic.history)} epochs, best is {best.epoch} with validation CIDEr {best.validation_cider:.4f}; "
        f"see {output / CURVE}"
    )


def _encoder_options(before: Checkpoint) -> TrainingOptions:
    """Returns the earlier run's options that determine its features: views and (frozen) encoder."""
    known = {option.name for option in fields(TrainingOptions)}
    earlier = TrainingOptions(**{name: value for name, value in before.config["training"].items() if name in known})
    return replace(earlier, finetune_encoder="", encoder_weights=before.encoder_weights)


def _line(epoch: RewardEpoch) -> str:
    return (
        f"epoch {epoch.epoch:3}  reward of samples {epoch.sample_reward:.4f} ({epoch.sample_words:.1f} words), greedy "
        f"{epoch.train_reward:.4f}  |  validation CIDEr {epoch.validation_cider:.4f}{each_source(epoch)}"
    )


if __name__ == "__main__":
    sys.exit(main())
