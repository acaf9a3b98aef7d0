"""The images that an export is verified with: photographs if there are any, else drawn ones."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from engine.bundle.manifest import ImageSpec
from engine.images.formats import image_suffixes
from engine.images.load import ImageInput, load_for_model
from export.errors import ExportError

SAMPLES = Path(__file__).parents[1] / "samples"
MOST = 32


def find_pictures(folder: Path | None = None) -> Sequence[ImageInput]:
    """Returns up to 32 images of a folder, by name; without a folder, the repository's samples, or drawn images.

    Raises ExportError for a folder without images.
    """
    where = folder or SAMPLES
    found = sorted(path for path in where.glob("*") if path.suffix.lower() in image_suffixes())
    if folder is not None and not found:
        raise ExportError(f"{folder} contains no images to verify with")
    return found[:MOST] or draw_pictures()


def load_pictures(folder: Path | None, image: ImageSpec) -> np.ndarray:
    """Returns the images of find_pictures as the model's input: uint8 (count, height, width, 3)."""
    return np.stack([load_for_model(picture, image) for picture in find_pictures(folder)])


def draw_pictures(count: int = 8, seed: int = 0) -> Sequence[ImageInput]:
    """Draws coloured boxes and discs on a coloured background, images of many sizes: uint8 (height, width, 3)."""
    random = np.random.default_rng(seed)
    pictures = []
    for _ in range(count):
        width, height = (int(side) for side in random.integers(48, 320, 2))
        picture = Image.new("RGB", (width, height), tuple(random.integers(0, 256, 3).tolist()))
        draw = ImageDraw.Draw(picture)
        for shape in (draw.rectangle, draw.ellipse):
            left, top = int(random.integers(0, width // 2)), int(random.integers(0, height // 2))
            box = (left, top, left + width // 3, top + height // 3)
            shape(box, fill=tuple(random.integers(0, 256, 3).tolist()))
        pictures.append(np.asarray(picture))
    return pictures
