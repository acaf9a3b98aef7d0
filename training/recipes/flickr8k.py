"""The recipe of a Flickr8k bundle: python -m training.recipes.flickr8k --data flickr8k --output FOLDER.

Meant for two cores. docs/quality.md says which of the choices were measured, and what they are worth.
"""

import sys
from dataclasses import replace

from engine.bundle.manifest import Defaults
from training.metrics.caption_statistics import BAD_ENDINGS
from training.options import ScstOptions, TrainingOptions
from training.recipes.command import main
from training.recipes.recipe import Recipe

SHARED = TrainingOptions(
    encoder="efficientnet_lite2",
    flip=True,
    schedule="cosine",
    weight_decay=0.01,
    ema=0.999,
    bf16=True,
    patience=0,
    label_smoothing=0.1,
    bottleneck=512,
    units=512,
    embedding=300,
    logit_hidden=300,
    dropout=0.5,
    tied=True,
    seed=1,
)

RECIPE = Recipe(
    name="flickr8k",
    bundle="flickr8k-efficientnet_lite2-lstm512",
    cross_entropy=replace(SHARED, epochs=8, batches=1000, batch_size=64, learning_rate=1e-3, warmup=200),
    fine_tuning=replace(
        SHARED,
        finetune_encoder="1",
        encoder_learning_rate=1e-4,
        jitter=4,
        epochs=8,
        batches=188,  # every image once: 6,000 in batches of 31 or 32 with their five captions
        batch_size=160,
        learning_rate=5e-4,
        warmup=50,
    ),
    self_critical=ScstOptions(
        epochs=12,
        learning_rate=2e-4,
        schedule="cosine",
        warmup=100,
        gradient_clip=1.0,
        ema=0.995,
        bf16=True,
        samples=5,
        sigma=4.0,
        bleu=2.0,
        batch_size=32,
        seed=1,
    ),
    defaults=Defaults(
        beam_size=3,
        length_penalty=3.0,
        no_repeat_ngram_size=2,
        bad_endings=tuple(sorted(BAD_ENDINGS | {"front", "on"})),  # people do end in these two, this model breaks off
    ),
    quantile=0.5,
    provenance={
        "data": {
            "name": "Flickr8k, official train list (6,000 photographs squashed to 224 x 224, five captions each)",
            "source": "M. Hodosh, P. Young, J. Hockenmaier: Framing Image Description as a Ranking Task, "
            "JAIR 47 (2013), 853-899",
            "terms": "The photographs belong to their Flickr authors; the set is for non-commercial research and "
            "teaching.",
        },
        "decoder": {"licence": "Trained on Flickr8k: for non-commercial research and teaching."},
    },
)

if __name__ == "__main__":
    sys.exit(main(RECIPE))
