"""A tiny data set of drawn shapes and a caption table of made-up features, for tests that train."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw

from engine.bundle.vocabulary import Vocabulary
from training.data.batches import CaptionTable
from training.data.examples import Example
from training.data.features import FeatureStore
from training.loops.cross_entropy import Trainer
from training.loops.distributed import Processes
from training.models.checkpoint import make_decoder
from training.options import TrainingOptions

COLOURS = ("red", "green", "blue", "yellow")
SHAPES = ("circle", "square")
GRID = 2, 3
ALONE = Processes(0, 1, torch.device("cpu"))
VOCABULARY = Vocabulary.build([f"a {colour} {shape} is here" for colour in COLOURS for shape in SHAPES], min_count=1)


def captions(colour: str, shape: str) -> tuple[str, ...]:
    return f"a {colour} {shape}", f"a {shape} is {colour}", f"here is a {colour} {shape}"


def draw_data(folder: Path, train: int = 16, validation: int = 8) -> Path:
    """Writes a folder of drawn photographs in the layout of Flickr8k."""
    generator = np.random.default_rng(0)
    (folder / "images").mkdir(parents=True)
    lines, names = ["image,caption"], []
    for index in range(train + validation):
        colour, shape = COLOURS[index % 4], SHAPES[index // 4 % 2]
        names.append(f"{index:02}.jpg")
        image = Image.new("RGB", (48, 48), (20, 20, 20))
        left, top = (int(value) for value in generator.integers(2, 16, 2))
        box = (left, top, left + 28, top + 28)
        pencil = ImageDraw.Draw(image)
        (pencil.ellipse if shape == "circle" else pencil.rectangle)(box, fill=colour)
        image.save(folder / "images" / names[-1])
        lines += [f"{names[-1]},{caption}" for caption in captions(colour, shape)]
    (folder / "captions.csv").write_text("\n".join(lines) + "\n")
    (folder / "train.txt").write_text("\n".join(names[:train]) + "\n")
    (folder / "val.txt").write_text("\n".join(names[train:]) + "\n")
    return folder


def make_examples(count: int) -> tuple[Example, ...]:
    return tuple(
        Example(f"{index:02}.jpg", captions(COLOURS[index % 4], SHAPES[index // 4 % 2])[: 1 + index % 3])
        for index in range(count)
    )


def make_store(count: int, seed: int = 0, grid: Sequence[int] = ()) -> FeatureStore:
    """Features that tell colour and shape apart: float16 (count, *grid, 6)."""
    known = np.concatenate([np.eye(4)[np.arange(count) % 4], np.eye(2)[np.arange(count) // 4 % 2]], axis=1)
    known = known.reshape(count, *(1 for _ in grid), 6)
    noise = np.random.default_rng(seed).normal(scale=0.1, size=(count, *grid, 6))
    return FeatureStore(tuple(f"{index:02}.jpg" for index in range(count)), (known + noise).astype(np.float16))


def make_table(count: int, seed: int = 0, grid: Sequence[int] = ()) -> CaptionTable:
    return CaptionTable.build(make_examples(count), [make_store(count, seed, grid)], VOCABULARY, max_words=5)


def make_options(**changes: object) -> TrainingOptions:
    small = {"epochs": 4, "batches": 6, "batch_size": 8, "validation_batches": 3, "min_count": 1, "patience": 0}
    sizes = {"bottleneck": 8, "units": 16, "embedding": 8, "logit_hidden": 8, "dropout": 0.3}
    return TrainingOptions(**(small | sizes | changes))  # type: ignore[arg-type]


def make_trainer(options: TrainingOptions, processes: Processes = ALONE) -> Trainer:
    torch.manual_seed(options.seed)
    grid = GRID if options.attends else ()
    sizes = options.sizes(shape=(*grid, 6), vocabulary_size=len(VOCABULARY), pad_id=VOCABULARY.pad_id)
    tables = make_table(20, grid=grid), make_table(9, seed=1, grid=grid)
    return Trainer(make_decoder(sizes), options, *tables, processes)
