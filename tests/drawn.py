"""A data set of drawn shapes in the Flickr8k layout: large enough to learn, small enough to learn in seconds."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

COLOURS = {"red": (220, 30, 30), "green": (30, 170, 60), "blue": (40, 60, 220), "yellow": (240, 210, 40)}
SHAPES = ("circle", "square", "triangle")
SIZE = 96


def draw(colour: str, shape: str, generator: np.random.Generator) -> Image.Image:
    """Draws one shape, somewhere on a pale ground."""
    image = Image.new("RGB", (SIZE, SIZE), tuple(generator.integers(225, 256, 3).tolist()))
    pen = ImageDraw.Draw(image)
    extent = int(generator.integers(40, 60))
    x, y = (int(v) for v in generator.integers(4, SIZE - extent - 4, 2))
    box = (x, y, x + extent, y + extent)
    if shape == "circle":
        pen.ellipse(box, fill=COLOURS[colour])
    elif shape == "square":
        pen.rectangle(box, fill=COLOURS[colour])
    else:
        pen.polygon([(x, y + extent), (x + extent, y + extent), (x + extent // 2, y)], fill=COLOURS[colour])
    return image


def write_drawn_data(folder: Path, train: int = 120, validation: int = 24) -> None:
    """Writes images/, captions.csv, train.txt and val.txt; every image has two captions."""
    generator = np.random.default_rng(5)
    (folder / "images").mkdir(parents=True)
    lines, names = ["image,caption"], []
    for i in range(train + validation):
        colour, shape = list(COLOURS)[i % len(COLOURS)], SHAPES[i % len(SHAPES)]
        name = f"{i:04d}.jpg"
        draw(colour, shape, generator).save(folder / "images" / name, quality=95)
        lines += [f"{name},A {colour} {shape} .", f"{name},There is a {colour} {shape} on the paper ."]
        names.append(name)
    (folder / "captions.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (folder / "train.txt").write_text("\n".join(names[:train]) + "\n", encoding="utf-8")
    (folder / "val.txt").write_text("\n".join(names[train:]) + "\n", encoding="utf-8")
