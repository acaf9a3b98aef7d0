"""The self-critical training command: python -m training.scst --from runs/x --output runs/y --data FOLDER.

Owns the run's folder and the printed output; the work is in training.loops.self_critical, reward and sampler.
"""

import argparse
import shutil
import sys
from collections.abc import Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path
from statistics import fmean

from torch.utils.tensorboard import SummaryWriter

from training.command import (
    CURVE,
    CURVES_LOG,
    HISTORY,
    PREDICTIONS,
    add_options,
    add_run_arguments,
    begin,
    check_output,
    check_same_run,
    each_source,
    execute,
    make_tables,
    read_options,
    read_source,
)
from training.files import write_atomically, write_json
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
    parser = _parser()
    given = parser.parse_args(arguments)
    options = read_options(parser, given, ScstOptions)
    return execute(given, lambda together: _run(given, options, together))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m training.scst",
        description="Self-critical training: trains a decoder for a high expected CIDEr-D of its sampled captions.",
        epilog="Several processes: torchrun --nproc-per-node=N -m training.scst with the same options.",
    )
    parser.add_argument(
        "--from", type=Path, required=True, dest="source", help="run whose best checkpoint to start from"
    )
    add_run_arguments(parser)
    add_options(parser, ScstOptions)
    return parser


def _run(given: argparse.Namespace, options: ScstOptions, together: Processes) -> None:
    output: Path = given.output
    if output.resolve() == given.source.resolve():
        raise CheckpointError(f"{output} is the --from run itself: choose another --output")
    check_output(output, resume=given.resume, overwrite=given.overwrite)
    together.wait()  # no process writes before all have checked
    before = checkpoint.load_checkpoint(given.source)
    run_data = prepare(read_source(given), _encoder_options(before, options), together)
    if run_data.encoder["fingerprint"] != before.config["encoder"]["fingerprint"]:
        raise CheckpointError(
            f"the encoder weights have changed since {given.source} was trained: "
            f"restore the original {before.encoder_weights}"
        )
    train, validation, data = make_tables(run_data, before.vocabulary, options.max_words, options.seed)
    config = before.config | {
        "data": data,
        "scst": asdict(options),
        "from": checkpoint.begun_with(given.source, before),
    }
    resuming = given.resume and (output / checkpoint.LAST).is_file()
    if resuming:
        check_same_run(output, "scst", options, config)
    critic = SelfCritic(before.decoder, options, train, validation, together)
    if resuming:
        critic.resume(output)
    # computed by all processes, printed by one
    earlier = "" if resuming else f", validation CIDEr {fmean(critic.validation_ciders().values()):.4f} before"
    together.wait()  # no process reads the folder any more
    if not together.first:
        for _ in critic.train(output):
            pass
        return
    begin(given, config, before.vocabulary)
    if (given.source / checkpoint.ENCODER).is_file():
        shutil.copyfile(given.source / checkpoint.ENCODER, output / checkpoint.ENCODER)
    print(
        f"{data['images']['train']:,} training and {data['images']['val']:,} validation images, {options.samples} "
        f"sentences each, {together.size} process(es) on {together.device}, epochs done: {len(critic.history)}{earlier}"
    )
    _train_and_write(critic, output)
    best = critic.best
    assert best is not None
    print(
        f"done: {len(critic.history)} epochs, best is {best.epoch} with validation CIDEr {best.validation_cider:.4f}; "
        f"see {output / CURVE}"
    )


def _encoder_options(before: Checkpoint, options: ScstOptions) -> TrainingOptions:
    """Returns the earlier run's options that determine its features: views and (frozen) encoder."""
    known = {option.name for option in fields(TrainingOptions)}
    earlier = TrainingOptions(**{name: value for name, value in before.config["training"].items() if name in known})
    earlier = replace(earlier, finetune_encoder="", encoder_weights=before.encoder_weights)
    return replace(earlier, flip=False, jitter=0) if options.views == "plain" else earlier


def _train_and_write(critic: SelfCritic, output: Path) -> None:
    """Trains to the end; after each epoch prints a line and writes history, curve, predictions and TensorBoard."""
    steps_done = len(critic.history) * critic.batches
    table = critic.validation_table
    shown = spread(len(table.names), SHOWN)
    _write_history(critic, output)  # in case of a kill between a checkpoint and its history
    with SummaryWriter(str(output / CURVES_LOG), purge_step=steps_done + 1 if steps_done else None) as board:

        def watch(step: int, reward: float, rate: float) -> None:
            board.add_scalar("batch/reward", reward, step)
            board.add_scalar("batch/learning_rate", rate, step)

        for epoch in critic.train(output, watch):
            texts = greedy_captions(
                critic.averaged, table.vocabulary, table.features_of(shown), critic.options.max_words
            )
            said = "".join(f"  {table.names[i]}  {text}\n" for i, text in zip(shown, texts, strict=True))
            print(f"{_line(epoch, critic)}\n{said}", end="", flush=True)
            for name in ("sample_reward", "train_reward", "validation_cider"):
                board.add_scalar(f"epoch/{name}", getattr(epoch, name), epoch.epoch * critic.batches)
            _write_history(critic, output)
            with (output / PREDICTIONS).open("a", encoding="utf-8") as file:
                file.write(f"epoch {epoch.epoch}\n{said}\n")


def _write_history(critic: SelfCritic, output: Path) -> None:
    if critic.history:
        write_json(output / HISTORY, [asdict(epoch) for epoch in critic.history])
        write_atomically(output / CURVE, draw_rewards(critic.history))


def _line(epoch: RewardEpoch, critic: SelfCritic) -> str:
    best = "  best so far" if critic.best is epoch else ""
    return (
        f"epoch {epoch.epoch:3}  reward of samples {epoch.sample_reward:.4f} ({epoch.sample_words:.1f} words), greedy "
        f"{epoch.train_reward:.4f}  |  validation CIDEr {epoch.validation_cider:.4f}{each_source(epoch)}  |  "
        f"{epoch.seconds:.0f} s{best}"
    )


if __name__ == "__main__":
    sys.exit(main())
