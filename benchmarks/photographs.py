"""The JPEG files that benchmarks caption: made from the repository's samples. Knows nothing of models."""

import io
from pathlib import Path

import numpy as np
from PIL import Image

SAMPLES = Path(__file__).parents[1] / "samples"
NAMES = ("astronaut", "cat", "coffee", "photographer", "rocket")  # fixed, so that figures stay comparable
SIZES = ((640, 480), (640, 427), (480, 640), (500, 375))  # (width, height), as photographs in COCO and Flickr8k have


def photographs(count: int) -> list[bytes]:
    """Returns JPEG files, always the same: random parts of the samples, at least 70% of a side, at common sizes."""
    samples = [Image.open(SAMPLES / f"{name}.jpg").convert("RGB") for name in NAMES]
    random = np.random.default_rng(0)
    files = []
    for i in range(count):
        sample, size = samples[i % len(samples)], SIZES[i % len(SIZES)]
        shares = random.uniform((0.7, 0.7, 0, 0), 1)  # of width and height, and where in the room that is left
        width, height = sample.width * shares[0], sample.height * shares[1]
        left, top = (sample.width - width) * shares[2], (sample.height - height) * shares[3]
        part = sample.resize(size, Image.Resampling.BICUBIC, box=(left, top, left + width, top + height))
        file = io.BytesIO()
        part.save(file, "JPEG", quality=90)
        files.append(file.getvalue())
    return files
