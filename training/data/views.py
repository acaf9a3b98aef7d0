"""Views of a photograph before it is encoded: whole, mirrored, or randomly cropped and coloured.

A view of an image depends only on the view's number and the image's name. Knows nothing of encoders.
"""

import math
import random
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from PIL import Image, ImageEnhance

from engine.bundle.manifest import ImageSpec
from engine.images.load import RESAMPLES, load_for_model

AREA = (0.7, 1.0)
ASPECT = (0.92, 1.08)
COLOUR = (0.8, 1.2)
ENHANCERS = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)
DETAIL = 2
"""A jittered view is cut out of the photograph at this multiple of the encoder's size, so that no detail is lost."""


@dataclass(frozen=True, slots=True)
class View:
    """The whole photograph, as it is or mirrored left to right; or, with a `jitter` from 1, that random view of it."""

    mirrored: bool = False
    jitter: int = 0

    @property
    def title(self) -> str:
        """A short name for folders: "plain", "flipped" or "jitter3"."""
        return f"jitter{self.jitter}" if self.jitter else "flipped" if self.mirrored else "plain"

    @property
    def recipe(self) -> Any:
        """Everything that determines the view, as JSON values."""
        return [self.jitter, AREA, ASPECT, COLOUR, DETAIL] if self.jitter else self.mirrored

    def pixels(self, name: str, content: bytes, image: ImageSpec) -> np.ndarray:
        """Returns the view of an encoded image: uint8 (height, width, 3). Raises ImageError."""
        if not self.jitter:
            pixels = load_for_model(content, image)
            return np.ascontiguousarray(pixels[:, ::-1]) if self.mirrored else pixels
        detailed = replace(image, height=DETAIL * image.height, width=DETAIL * image.width)
        whole = load_for_model(content, detailed)
        drawn = random.Random(f"{self.jitter} {name}")  # string seeds are the same in every process and version
        return np.asarray(_jittered(Image.fromarray(whole), image, drawn))


def training_views(*, flip: bool, jitter: int) -> tuple[View, ...]:
    """Returns the views that a run trains on: the plain one, the mirrored one, and those numbered 1 to `jitter`."""
    mirrored = (View(mirrored=True),) if flip else ()
    return (View(), *mirrored, *(View(jitter=number) for number in range(1, jitter + 1)))


def _jittered(whole: Image.Image, image: ImageSpec, drawn: random.Random) -> Image.Image:
    area, stretch = drawn.uniform(*AREA), drawn.uniform(*ASPECT)
    # Relative to the photograph's own aspect, since it has the encoder's shape already.
    width, height = (min(1.0, math.sqrt(share)) for share in (area * stretch, area / stretch))
    left, top = drawn.uniform(0, 1 - width), drawn.uniform(0, 1 - height)
    edges = (left * whole.width, top * whole.height, (left + width) * whole.width, (top + height) * whole.height)
    seen = whole.resize((image.width, image.height), RESAMPLES[image.resample], box=edges)
    if drawn.random() < 0.5:
        seen = seen.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    for enhancer in ENHANCERS:
        seen = enhancer(seen).enhance(drawn.uniform(*COLOUR))
    return seen
