"""The recipe for bigger data: python -m training.recipes.coco2014 --data coco --output FOLDER.

The architecture, the sizes and the length of the run that this project began from; the model card says what that one
reached. Features of 123,000 photographs are most of the work on a CPU; --device cuda takes a GPU.
"""

import sys

from engine.bundle.manifest import Defaults
from training.options import TrainingOptions
from training.recipes.command import main
from training.recipes.recipe import Recipe

RECIPE = Recipe(
    name="coco2014",
    bundle="coco2014-inception_v3-lstm300",
    cross_entropy=TrainingOptions(
        encoder="inception_v3",
        epochs=30,
        batches=1000,
        batch_size=64,
        learning_rate=1e-3,
        patience=0,
        bottleneck=120,
        units=300,
        embedding=100,
        logit_hidden=120,
    ),
    defaults=Defaults(beam_size=3, length_penalty=0.7),
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
