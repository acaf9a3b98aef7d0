"""A recipe of seconds, with all stages; python -m tests.training.small_recipe --data FOLDER --output FOLDER."""

import sys
from dataclasses import replace

from engine.bundle.manifest import Defaults
from training.options import ScstOptions, TrainingOptions
from training.recipes.command import main
from training.recipes.recipe import Recipe

TRAINING = TrainingOptions(
    encoder="test_efficientnet",
    encoder_weights="random",
    flip=True,
    epochs=2,
    batches=25,
    batch_size=16,
    learning_rate=1e-2,
    schedule="cosine",
    min_count=1,
    ema=0.9,
    bottleneck=24,
    units=32,
    embedding=16,
    logit_hidden=16,
    tied=True,
    seed=3,
)

RECIPE = Recipe(
    name="small",
    bundle="small-drawn",
    cross_entropy=TRAINING,
    fine_tuning=replace(TRAINING, finetune_encoder="1", encoder_learning_rate=1e-3, jitter=1),
    self_critical=ScstOptions(epochs=2, batches=4, batch_size=8, samples=3, seed=3),
    defaults=Defaults(beam_size=2, length_penalty=0.5, max_length=12, bad_endings=("a", "the")),
    calibration_images=16,
    quantile=0.4,
    provenance={"data": {"name": "drawn shapes"}},
)

if __name__ == "__main__":
    sys.exit(main(RECIPE))
