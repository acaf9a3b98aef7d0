"""The comparison command: python -m training.compare_resizing --bundle FOLDER --data FOLDER --output resizing.json.

Says which resize rule suits photographs of usual shapes, for a bundle that learnt from squashed ones: those of a data
set are stretched to shapes that they may have had, and captioned as each rule shows them. Changes no bundle.
"""

import argparse
import io
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from engine import Beam, Captioner, EngineError, Greedy, ImageError
from engine.bundle.manifest import RESIZE_RULES, ImageSpec
from engine.commands.parser import Parser, whole
from engine.images.fit import Size, crop
from engine.images.load import RESAMPLES, load_for_model, load_pixels
from engine.options import Decoding
from training.data.datasets import DataError, Dataset, Example, open_dataset
from training.files import check_outputs, write_json
from training.metrics.bootstrap import Difference, compare
from training.metrics.counts import BLEU_COLUMNS, ImageCounts, Rows
from training.metrics.java import MetricsError, package
from training.metrics.tokens import Tokeniser, find_tokeniser
from training.outcome import outcome

SHAPES: tuple[Size, ...] = ((640, 480), (480, 640), (640, 360))
QUALITY = 90
SQUASH, TWO_CROPS, ALL = "squash", "two crops", "all"
Look = Callable[[bytes], Sequence[np.ndarray]]
"""Shows a photograph's file as pictures for the encoder, uint8 (height, width, 3); their features are averaged."""
Told = dict[tuple[str, str], list[str]]
"""Shape and look -> what is said of each photograph."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns 0, 1 for a named error, 130 after Ctrl-C."""
    parser = _parser()
    given = parser.parse_args(arguments)
    check_outputs(parser, given, "--output")
    return outcome(lambda: _run(given), EngineError, DataError, MetricsError)


def _run(given: argparse.Namespace) -> None:
    package()  # fails early, with install instructions
    dataset = open_dataset(given.data, given.split)
    captioner = Captioner(given.bundle, provider=given.provider, precision=given.precision)
    examples = dataset.examples[: given.limit]
    decoding = Greedy() if given.greedy else Beam()
    tokeniser = find_tokeniser()
    if tokeniser.note:
        print(f"note: {tokeniser.note}", file=sys.stderr)
    told: Told = {}
    for shape in tqdm(SHAPES, "shapes", disable=None):
        photographs = [stretched(dataset, example.name, shape) for example in examples]
        for name, look in looks(captioner.bundle.manifest.image).items():
            told[f"{shape[0]} x {shape[1]}", name] = captions(captioner, photographs, look, decoding)
    found = differences(scores(told, examples, tokeniser), [example.name for example in examples])
    print(table(found))
    made = f"{'greedy' if given.greedy else 'default beam'}, {captioner.provider} {captioner.precision}"
    print(f"{len(examples):,} photographs of {given.data} ({given.split}), {made}; CIDEr, differences from {SQUASH}")
    record = {
        "bundle": captioner.bundle.manifest.name,
        "data": given.data.resolve().name,
        "split": given.split,
        "images": len(examples),
        "made_with": made,
        "tokeniser": tokeniser.name,
        "cider": [{"shape": shape, "look": look, **asdict(one)} for (shape, look), one in found.items()],
    }
    write_json(given.output, record)
    print(f"written to {given.output}")


def stretched(dataset: Dataset, name: str, shape: Size) -> bytes:
    """Returns a photograph stretched to a (width, height), as a JPEG file. Raises DataError where it cannot be read."""
    try:
        pixels = load_pixels(dataset.read(name), height=shape[1], width=shape[0])
    except ImageError as error:
        raise DataError(f"{name} cannot be read: leave it out of the data set") from error
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=QUALITY)
    return file.getvalue()


def looks(image: ImageSpec) -> dict[str, Look]:
    """Returns the ways to show a photograph: by each rule, and by two crops."""

    def by_rule(photograph: bytes, rule: str) -> Sequence[np.ndarray]:
        return [load_for_model(photograph, replace(image, resize=rule))]

    rules: dict[str, Look] = {rule: partial(by_rule, rule=rule) for rule in RESIZE_RULES}
    return {**rules, TWO_CROPS: partial(two_crops, image=image)}


def two_crops(photograph: bytes, image: ImageSpec) -> Sequence[np.ndarray]:
    """Shows both ends of a photograph's longer side, each as large as "crop" shows its middle."""
    whole, target = Image.open(io.BytesIO(photograph)), (image.width, image.height)
    left, top, _, _ = crop(whole.size, target).part or (0, 0, *whole.size)
    right, bottom = whole.width - 2 * left, whole.height - 2 * top
    ends = (0, 0, right, bottom), (2 * left, 2 * top, whole.width, whole.height)
    return [np.asarray(whole.resize(target, RESAMPLES[image.resample], box=end)) for end in ends]


def captions(captioner: Captioner, photographs: Sequence[bytes], look: Look, decoding: Decoding) -> list[str]:
    """Returns what is said of each photograph, seen in this way."""
    features = captioner.encode(picture for photograph in photographs for picture in look(photograph))
    mean = features.reshape(len(photographs), -1, features.shape[1]).mean(axis=1)
    return [caption.text for caption in captioner.caption_features(mean, decoding)]


def scores(told: Told, examples: Sequence[Example], tokeniser: Tokeniser) -> dict[tuple[str, str], Rows]:
    """Returns the CIDEr of each caption, float64 (photographs,), and under ALL its mean over shapes."""
    from pycocoevalcap.cider.cider import Cider

    truths = tokeniser({example.name: example.captions for example in examples})
    said = tokeniser({text: [text] for texts in told.values() for text in texts})
    rows: dict[tuple[str, str], Rows] = {}
    for key, texts in told.items():
        guesses = {example.name: said[text] for example, text in zip(examples, texts, strict=True)}
        rows[key] = np.asarray(Cider().compute_score(truths, guesses)[1])
    for name in dict.fromkeys(look for _, look in told):
        rows[ALL, name] = np.mean([rows[key] for key in told if key[1] == name], axis=0)
    return rows


def differences(rows: Mapping[tuple[str, str], Rows], names: Sequence[str]) -> dict[tuple[str, str], Difference]:
    """Compares every look with squash, photograph by photograph, for each shape."""

    def counted(cider: Rows) -> ImageCounts:
        return ImageCounts(tuple(names), np.zeros((len(names), BLEU_COLUMNS)), None, {"CIDEr": cider})

    squashed = {shape: counted(cider) for (shape, look), cider in rows.items() if look == SQUASH}
    return {key: compare(squashed[key[0]], counted(cider))["CIDEr"] for key, cider in rows.items()}


def table(found: Mapping[tuple[str, str], Difference]) -> str:
    """Returns one line for each shape and look: CIDEr, its difference from squash with 95% interval, two-sided p."""
    lines = [f"{'shape':9}  {'look':9}  {'CIDEr':>6}  {'difference':>10}  {'95% interval':^18}  {'p':>5}"]
    for (shape, look), one in found.items():
        line = f"{shape:9}  {look:9}  {one.second:6.3f}"
        if look != SQUASH:
            interval = f"{one.interval.low:+.3f} to {one.interval.high:+.3f}"
            line += f"  {one.change:+10.3f}  {interval:^18}  {one.p:5.3f}"
        lines.append(line)
    return "\n".join(lines)


def _parser() -> Parser:
    parser = Parser(prog="python -m training.compare_resizing", description=__doc__)
    option = parser.add_argument
    option("--bundle", type=Path, help="bundle to measure (default: the one that ships)")
    option("--data", type=Path, required=True, help="COCO 2014 or Flickr8k folder of squashed photographs")
    option("--split", choices=("train", "val"), default="val", help="which images (default: val)")
    option("--limit", type=whole(1), metavar="N", help="use only the first N photographs")
    option("--greedy", action="store_true", help="greedy search (default: the bundle's own beam search)")
    option("--provider", default="cpu", help="the engine's provider (default: cpu)")
    option("--precision", default="fp32", help="the bundle's precision (default: fp32)")
    option("--output", type=Path, default=Path("resizing.json"), help="JSON file (default: resizing.json)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
