"""The command that both recipes share: its options, its messages, what is written besides the stages' own folders."""

import argparse
import shutil
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from training.data.datasets import DataError
from training.files import write_atomically, write_json
from training.models.encoder_weights import EncoderError
from training.outcome import outcome
from training.recipes import recipe, record
from training.recipes.curves import PANELS, draw_stages
from training.recipes.recipe import Recipe
from training.recipes.stages import RecipeError, RecipeFolder, Stage
from training.recipes.subset import write_subset

SMOKE = {"train": 120, "val": 40}
CURVES = "curves.png"
GO_ON = "start the same command again, which goes on where this one stopped"


def main(chosen: Recipe, arguments: Sequence[str] | None = None) -> int:
    """Runs a recipe's command; returns 0, 1 for a named error, 2 for unusable options, 130 after Ctrl-C."""
    parser = _parser(chosen)
    given = parser.parse_args(arguments)
    if given.threads < 0:
        parser.error(f"--threads must be at least 0 (PyTorch's default), but it is {given.threads}")
    return outcome(lambda: _run(chosen, given), DataError, EncoderError, RecipeError, interrupted=lambda: GO_ON)


def _parser(chosen: Recipe) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=f"python -m training.recipes.{chosen.name}",
        description=f"Makes the bundle {chosen.bundle}: trains, exports, measures. Stopped at any moment, by Ctrl-C or "
        "by a kill, the same command goes on where it was.",
    )
    parser.add_argument("--data", type=Path, required=True, help="COCO 2014 or Flickr8k folder")
    parser.add_argument("--output", type=Path, required=True, help="folder of this recipe; the bundle will be in it")
    weights = chosen.cross_entropy.encoder_weights
    parser.add_argument(
        "--encoder-weights", default=weights, help=f'"pretrained", "random" or a file (default: {weights})'
    )
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="cpu", help="to train on (default: cpu)")
    parser.add_argument(
        "--threads", type=int, default=2, help="CPU threads; others give other last digits (default: 2)"
    )
    parser.add_argument(
        "--smoke", action="store_true", help="a few photographs and batches: does everything run here? Some minutes"
    )
    return parser


def _run(chosen: Recipe, given: argparse.Namespace) -> None:
    output: Path = given.output
    weights = {"encoder_weights": given.encoder_weights}
    tuning = chosen.fine_tuning and replace(chosen.fine_tuning, **weights)
    chosen = replace(chosen, cross_entropy=replace(chosen.cross_entropy, **weights), fine_tuning=tuning)
    place = RecipeFolder(output, {output: "OUTPUT", given.data: "DATA"})
    made_of = {
        "recipe": chosen.name,
        "smoke": given.smoke,
        "ingredients": (chosen.smaller() if given.smoke else chosen).ingredients(),
        "data": record.describe_data(given.data),
        **record.describe_weights(given.encoder_weights),
    }
    about = {
        "machine": record.describe_machine(given.device, given.threads),
        "versions": record.describe_versions(),
    }
    with place.opened(made_of, about):
        data = given.data
        if given.smoke:
            chosen, data = chosen.smaller(), output / "data"
            if not place.record["stages"]:  # of other ingredients, if it is there
                shutil.rmtree(data, ignore_errors=True)
            write_subset(given.data, data, SMOKE)
        write_json(output / recipe.PROVENANCE, chosen.provenance)

        def finish(stage: Stage) -> None:
            if stage.name in PANELS:
                write_atomically(output / CURVES, draw_stages(output))
                place.record["stages"][stage.name]["precision"] = record.precisions(output / stage.name)

        began = time.perf_counter()
        place.run(chosen.stages(data, output, device=given.device, threads=given.threads), finish)
        hours = sum(stage["seconds"] for stage in place.record["stages"].values()) / 3600
        place.say(
            chosen.name,
            f"done: {hours:.2f} hours of work, {(time.perf_counter() - began) / 3600:.2f} of them now; the bundle is "
            f"{output / recipe.BUNDLE}, its captions are in {output / recipe.REPORT}",
        )
