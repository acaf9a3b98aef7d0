"""The recipe for bigger data: python -m training.recipes.coco2014 --data coco --output FOLDER.

It has the architecture, sizes and training length of the run that this project started from; the model card has its
results. On a CPU most of the work is the features of 123,000 photographs; --device cuda uses a GPU.
"""

import sys

from training.recipes.driver import Recipe, main

BUNDLE = "coco2014-inception_v3-lstm300"

STAGES = {
    "cross-entropy": [
        "training.train --output OUTPUT/cross-entropy --data DATA --features OUTPUT/features --device DEVICE "
        "--threads THREADS --encoder inception_v3 --encoder-weights WEIGHTS --epochs 30 --batches 1000 --batch-size 64 "
        "--learning-rate 1e-3 --patience 0 --bottleneck 120 --units 300 --embedding 100 --logit-hidden 120 [--resume]",
    ],
    "bundle": [
        f"export.to_onnx --checkpoint OUTPUT/cross-entropy --output OUTPUT/bundle --name {BUNDLE} --beam-size 3 "
        "--length-penalty 0.7 --provenance OUTPUT/provenance.json --precision fp32,int8 --calibration DATA "
        "--measure DATA [--overwrite]",
    ],
    "scores": [
        "training.evaluate --bundle OUTPUT/bundle --data DATA --precision fp32 --provider cpu "
        "--output OUTPUT/scores/scores.json --results-out OUTPUT/scores/captions.json --report OUTPUT/report.html",
        "export.to_onnx --output OUTPUT/bundle --quality OUTPUT/scores/scores.json",
    ],
}

RECIPE = Recipe(
    name="coco2014",
    bundle=BUNDLE,
    stages=STAGES,
    provenance={
        "data": {
            "name": "COCO 2014 captions, train2014 (82,783 photographs, five captions each)",
            "source": "X. Chen et al.: Microsoft COCO Captions, arXiv:1504.00325 (2015)",
            "terms": "Captions CC BY 4.0; the photographs belong to their Flickr authors under licences of their own.",
        },
        "decoder": {"licence": "Trained on COCO 2014 captions, CC BY 4.0."},
    },
)

if __name__ == "__main__":
    sys.exit(main(RECIPE))
