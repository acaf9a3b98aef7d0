"""The recipe of a bundle for everyday photographs: python -m training.recipes.everyday --data FOLDER --output FOLDER.

It uses two sets of photographs, and people's captions of 77,000 further photographs. FOLDER contains coco-mini and
flickr8k, both in the layout of Flickr8k, and sentences. The measurements are in docs/quality.md.
"""

import sys

from training.recipes import flickr8k
from training.recipes.driver import Recipe, main

BUNDLE = "everyday-efficientnet_lite2-lstm512"
# how often each is drawn; fine-tuning shows photographs only
COCO, FLICKR, COCO_TEXT, FLICKR_TEXT = 0.14, 0.38, 0.28, 0.2
CROSS_ENTROPY = f"{flickr8k.TRAINING} --epochs 24 --batches 1000 --batch-size 64 --learning-rate 1e-3 --warmup 200"
# few and small steps: without the sentences, the decoder soon forgets what they taught about COCO
# 7,642 photographs fill 219 batches of 34 or 35, with all their captions; weights show some more often than others
FINE_TUNING = (
    f"{flickr8k.TRAINING} --finetune-encoder 3 --encoder-learning-rate 1e-4 --jitter 4 --epochs 3 --batches 219 "
    "--batch-size 160 --learning-rate 1.5e-4 --warmup 50"
)
SELF_CRITICAL = (  # rarity, cross-entropy and lower logits of frequent words keep words that rewards alone would lose
    "--epochs 12 --batches 250 --learning-rate 2e-4 --schedule cosine --warmup 100 --gradient-clip 1.0 --ema 0.995 "
    "--bf16 --samples 5 --sigma 4.0 --bleu 2.0 --rarity 1.7 --cross-entropy 0.3 "
    "--logit-adjustment 0.3 --batch-size 32 --seed 1"
)
REFINEMENT = (  # rewards that are nearer to CIDEr, mostly on photographs
    "--epochs 5 --batches 250 --learning-rate 1e-4 --schedule cosine --warmup 50 --gradient-clip 1.0 --ema 0.995 "
    "--bf16 --samples 5 --sigma 4.0 --bleu 2.0 --rarity 1.2 --cross-entropy 0.15 --batch-size 32 --seed 2"
)
VECTORS = (
    "--epochs 20 --batch-size 384 --paraphrases 512 --paraphrase-weight 1.0 --size 512 --embedding 512 --hidden 512"
)
DEFAULTS = flickr8k.DEFAULTS.replace("--length-penalty 3.0", "--length-penalty 1.0")  # rare words cost no length
OVERUSED = "man"  # said 1.6 times as often as people say it
CALIBRATION, QUANTILE = 256, 0.5  # photographs for INT8; the share of people's captions that a good one reaches

SETS = "coco-mini", "flickr8k"
SENTENCES = "sentences/coco.jsonl.gz", "sentences/flickr30k.jsonl.gz"
PHOTOGRAPHS = f"--data DATA/coco-mini={COCO} --data DATA/flickr8k={FLICKR} {flickr8k.FEATURES}"
TEXTS = f"--sentences DATA/{SENTENCES[0]}={COCO_TEXT} --sentences DATA/{SENTENCES[1]}={FLICKR_TEXT}"
PARAPHRASES = " ".join(f"--sentences DATA/{name}" for name in SENTENCES)
MOSTLY_PHOTOGRAPHS = (
    f"--data DATA/coco-mini=0.2 --data DATA/flickr8k=0.6 {flickr8k.FEATURES} "
    f"--sentences DATA/{SENTENCES[0]}=0.12 --sentences DATA/{SENTENCES[1]}=0.08"
)
EACH, CALIBRATE, MEASURE, QUALITY = (
    " ".join(f"{option} {place.format(name)}" for name in SETS)
    for option, place in (
        ("--data", "DATA/{}"),
        ("--calibration", "DATA/{}"),
        ("--measure", "DATA/{}"),
        ("--quality", "OUTPUT/scores/{}.json"),
    )
)

STAGES = {
    "cross-entropy": [
        f"training.train --output OUTPUT/cross-entropy {PHOTOGRAPHS} {TEXTS} --encoder-weights WEIGHTS "
        f"{CROSS_ENTROPY} [--resume]",
    ],
    "fine-tuning": [
        f"training.train --output OUTPUT/fine-tuning --from OUTPUT/cross-entropy {PHOTOGRAPHS} "
        f"--encoder-weights WEIGHTS {FINE_TUNING} [--resume]",
    ],
    "self-critical": [
        f"training.scst --output OUTPUT/self-critical --from OUTPUT/fine-tuning {PHOTOGRAPHS} {TEXTS} "
        f"{SELF_CRITICAL} [--resume]",
    ],
    "refinement": [
        f"training.scst --output OUTPUT/refinement --from OUTPUT/self-critical {MOSTLY_PHOTOGRAPHS} "
        f"{REFINEMENT} [--resume]",
    ],
    "balance": [
        f"export.to_onnx --checkpoint OUTPUT/refinement --output OUTPUT/unbalanced {DEFAULTS} [--overwrite]",
        f"training.balance --bundle OUTPUT/unbalanced {EACH} --output OUTPUT/balance/balance.json --fully {OVERUSED}",
    ],
    "bundle": [
        f"export.to_onnx --checkpoint OUTPUT/refinement --output OUTPUT/bundle --name {BUNDLE} {DEFAULTS} "
        f"--shifts OUTPUT/balance/balance.json --provenance OUTPUT/provenance.json --precision fp32,int8 {CALIBRATE} "
        f"--calibration-images {CALIBRATION} {MEASURE} [--overwrite]",
    ],
    "confidence": [
        f"training.calibrate --bundle OUTPUT/bundle {EACH} --output OUTPUT/confidence/confidence.json "
        f"--quantile {QUANTILE} --plot OUTPUT/confidence/reliability.png",
        "export.to_onnx --output OUTPUT/bundle --confidence OUTPUT/confidence/confidence.json",
    ],
    "scores": [
        *(
            f"training.evaluate --bundle OUTPUT/bundle --data DATA/{name} --precision fp32 --provider cpu "
            f"--output OUTPUT/scores/{name}.json --results-out OUTPUT/scores/captions-{name}.json "
            f"--report OUTPUT/report-{name}.html"
            for name in SETS
        ),
        f"export.to_onnx --output OUTPUT/bundle {QUALITY}",
    ],
    "vectors": [
        f"training.joint --bundle OUTPUT/bundle --output OUTPUT/vectors {EACH} {PARAPHRASES} {flickr8k.FEATURES} "
        f"{VECTORS} [--resume]",
        "export.to_onnx --output OUTPUT/bundle --joint OUTPUT/vectors",
    ],
}

RECIPE = Recipe(
    name="everyday",
    bundle=BUNDLE,
    stages=STAGES,
    data=SETS,
    sentences=SENTENCES,
    provenance={
        "data": {
            "name": "1,642 photographs of COCO (squashed to 256 x 256, one to seven captions each); Flickr8k, official "
            "train list (6,000 photographs squashed to 224 x 224, five captions each); captions without photographs: "
            "of 48,577 photographs of COCO, and of Flickr30k",
            "source": "T.-Y. Lin et al.: Microsoft COCO, arXiv:1405.0312 (2014); X. Chen et al.: Microsoft COCO "
            "Captions, arXiv:1504.00325 (2015); M. Hodosh, P. Young, J. Hockenmaier: Framing Image Description as a "
            "Ranking Task, JAIR 47 (2013), 853-899; P. Young et al.: From Image Descriptions to Visual Denotations, "
            "TACL 2 (2014), 67-78",
            "terms": "COCO's captions CC BY 4.0; Flickr8k and Flickr30k are for non-commercial research and teaching; "
            "the photographs belong to their Flickr authors.",
        },
        "decoder": {
            "licence": "Trained on captions of COCO (CC BY 4.0), Flickr8k and Flickr30k: for non-commercial research "
            "and teaching."
        },
    },
)

if __name__ == "__main__":
    sys.exit(main(RECIPE))
