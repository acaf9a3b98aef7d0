"""Drawn images with the size and detail of photographs, for measurements without photographs."""

import io

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

WIDTH, HEIGHT = 640, 480


def draw_photographs(count: int, seed: int = 0) -> list[bytes]:
    """Returns `count` JPEG files of 640 x 480, about 70 kB each like photographs; the same for the same seed."""
    generator = np.random.default_rng(seed)
    files = [io.BytesIO() for _ in range(count)]
    for file in files:
        _draw(generator).save(file, "JPEG", quality=90)
    return [file.getvalue() for file in files]


def _draw(generator: np.random.Generator) -> Image.Image:
    """Draws a sky, a ground and a few blurred shapes, and adds grain."""
    clouds = generator.integers(0, 256, (6, 8, 3), np.uint8)
    image = Image.fromarray(clouds).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)
    pen = ImageDraw.Draw(image)
    for _ in range(12):
        x, y = int(generator.integers(WIDTH)), int(generator.integers(HEIGHT))
        reach = int(generator.integers(20, 160))
        colour = tuple(generator.integers(0, 256, 3).tolist())
        shape = pen.ellipse if generator.random() < 0.5 else pen.rectangle
        shape((x, y, x + reach, y + int(reach * generator.uniform(0.4, 2))), fill=colour)
    image = image.filter(ImageFilter.GaussianBlur(1.5))
    grain = generator.normal(0, 4, (HEIGHT, WIDTH, 1))
    return Image.fromarray(np.clip(np.asarray(image) + grain, 0, 255).astype(np.uint8))
