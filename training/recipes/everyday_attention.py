"""The recipe of a bundle with attention: python -m training.recipes.everyday_attention --data FOLDER --output FOLDER.

Its data and stages are those of the recipe `everyday`, but for the vectors. Attention learns from nothing:
started from a decoder without it, it was no better than that one. The measurements are in docs/quality.md.
"""

import sys

from training.recipes import everyday, flickr8k
from training.recipes.driver import Recipe, main

BUNDLE = "everyday-attention-efficientnet_lite2-lstm512"
DECODER = "--decoder attention --attention-size 128"
CROSS_ENTROPY = (
    f"{flickr8k.TRAINING} {DECODER} --epochs 48 --batches 500 --batch-size 64 --learning-rate 1e-3 --warmup 200"
)
FINE_TUNING = f"{everyday.FINE_TUNING} {DECODER} --jitter 2"  # the grids of six views would fill 9 GB
# attention learns photographs by heart sooner: half of the batches, and some features dropped
SELF_CRITICAL = everyday.SELF_CRITICAL.replace("--epochs 12", "--epochs 6") + " --dropout 0.3"

STAGES = {
    "cross-entropy": [
        f"training.train --output OUTPUT/cross-entropy {everyday.PHOTOGRAPHS} {everyday.TEXTS} "
        f"--encoder-weights WEIGHTS {CROSS_ENTROPY} [--resume]",
    ],
    "fine-tuning": [
        f"training.train --output OUTPUT/fine-tuning --from OUTPUT/cross-entropy {everyday.PHOTOGRAPHS} "
        f"--encoder-weights WEIGHTS {FINE_TUNING} [--resume]",
    ],
    "self-critical": [
        f"training.scst --output OUTPUT/self-critical --from OUTPUT/fine-tuning {everyday.PHOTOGRAPHS} "
        f"{everyday.TEXTS} {SELF_CRITICAL} [--resume]",
    ],
    **{
        name: [
            line.replace("OUTPUT/refinement", "OUTPUT/self-critical").replace(everyday.BUNDLE, BUNDLE)
            for line in everyday.STAGES[name]
        ]
        for name in ("balance", "bundle", "confidence", "scores")
    },
}

RECIPE = Recipe(
    name="everyday_attention",
    bundle=BUNDLE,
    stages=STAGES,
    data=everyday.SETS,
    sentences=everyday.SENTENCES,
    provenance=everyday.RECIPE.provenance,
)

if __name__ == "__main__":
    sys.exit(main(RECIPE))
