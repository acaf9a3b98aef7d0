"""The recipe of a Flickr8k bundle: python -m training.recipes.flickr8k --data flickr8k --output FOLDER.

Meant for two cores. docs/quality.md says which choices were measured, and their effect.
"""

import sys

from training.metrics.caption_statistics import BAD_ENDINGS
from training.recipes.driver import Recipe, main

BUNDLE = "flickr8k-efficientnet_lite2-lstm512"
FEATURES = "--features OUTPUT/features --device DEVICE --threads THREADS"
TRAINING = (
    "--encoder efficientnet_lite2 --flip --schedule cosine --weight-decay 0.01 --ema 0.999 --bf16 --patience 0 "
    "--label-smoothing 0.1 --bottleneck 512 --units 512 --embedding 300 --logit-hidden 300 --dropout 0.5 --tied "
    "--seed 1"
)
CROSS_ENTROPY = f"{TRAINING} --epochs 8 --batches 1000 --batch-size 64 --learning-rate 1e-3 --warmup 200"
# every image once in 188 batches: 6,000 in batches of 31 or 32 with their five captions
FINE_TUNING = (
    f"{TRAINING} --finetune-encoder 1 --encoder-learning-rate 1e-4 --jitter 4 --epochs 8 --batches 188 "
    "--batch-size 160 --learning-rate 5e-4 --warmup 50"
)
SELF_CRITICAL = (
    "--epochs 12 --learning-rate 2e-4 --schedule cosine --warmup 100 --gradient-clip 1.0 --ema 0.995 --bf16 "
    "--samples 5 --sigma 4.0 --bleu 2.0 --batch-size 32 --seed 1"
)
DEFAULTS = (  # people do end captions in "front" and "on", but this model breaks off there
    "--beam-size 3 --length-penalty 3.0 --no-repeat-ngram-size 2 "
    f"--bad-endings {','.join(sorted(BAD_ENDINGS | {'front', 'on'}))}"
)

STAGES = {
    "cross-entropy": [
        f"training.train --output OUTPUT/cross-entropy --data DATA {FEATURES} --encoder-weights WEIGHTS "
        f"{CROSS_ENTROPY} [--resume]",
    ],
    "fine-tuning": [
        f"training.train --output OUTPUT/fine-tuning --from OUTPUT/cross-entropy --data DATA {FEATURES} "
        f"--encoder-weights WEIGHTS {FINE_TUNING} [--resume]",
    ],
    "self-critical": [
        f"training.scst --output OUTPUT/self-critical --from OUTPUT/fine-tuning --data DATA {FEATURES} "
        f"{SELF_CRITICAL} [--resume]",
    ],
    "bundle": [
        f"export.to_onnx --checkpoint OUTPUT/self-critical --output OUTPUT/bundle --name {BUNDLE} {DEFAULTS} "
        "--provenance OUTPUT/provenance.json --precision fp32,int8 --calibration DATA --measure DATA [--overwrite]",
    ],
    "confidence": [
        "training.calibrate --bundle OUTPUT/bundle --data DATA --output OUTPUT/confidence/confidence.json "
        "--quantile 0.5 --plot OUTPUT/confidence/reliability.png",
        "export.to_onnx --output OUTPUT/bundle --confidence OUTPUT/confidence/confidence.json",
    ],
    "scores": [
        "training.evaluate --bundle OUTPUT/bundle --data DATA --precision fp32 --provider cpu "
        "--output OUTPUT/scores/scores.json --results-out OUTPUT/scores/captions.json --report OUTPUT/report.html",
        "export.to_onnx --output OUTPUT/bundle --quality OUTPUT/scores/scores.json",
    ],
}

RECIPE = Recipe(
    name="flickr8k",
    bundle=BUNDLE,
    stages=STAGES,
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
