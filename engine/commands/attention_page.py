"""A page of photographs that shows where the model looked for each word. Knows nothing of models."""

import base64
import html
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image
from PIL.ExifTags import Base

from engine.bundle.manifest import ImageSpec
from engine.images.load import load_for_model
from engine.result import Caption

DARKEST = 200  # of 255: how opaque the cover of what was not looked at is
ORIENTATION, SIDEWAYS = Base.Orientation, (5, 6, 7, 8)
STYLE = """
body { font: 16px/1.4 system-ui, sans-serif; margin: 2rem auto; max-width: 70rem; padding: 0 1rem; color: #222; }
section { border-top: 1px solid #ccc; padding: 1rem 0; }
h2 { font-size: 1.1rem; margin: 0 0 .2rem; }
p { color: #666; margin: 0 0 .6rem; overflow-wrap: anywhere; }
.words { display: flex; flex-wrap: wrap; gap: .6rem; }
figure { margin: 0; width: 9rem; }
figure div { position: relative; overflow: hidden; }
figure img { position: absolute; inset: 0; width: 100%; height: 100%; }
figcaption { text-align: center; overflow-wrap: anywhere; }
"""


class AttentionPage:
    """Collects photographs, and writes the page when it is closed; until then the file stays as it was."""

    def __init__(self, path: Path, image: ImageSpec, title: str) -> None:
        """image: how the model sees photographs."""
        self.path = path
        self._image = image
        self._parts = [
            "<!doctype html>",
            '<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">',
            f"<title>{html.escape(title)}</title><style>{STYLE}</style><h1>{html.escape(title)}</h1>",
        ]

    def add(self, name: str, caption: Caption) -> None:
        """Adds the photograph of this path with its caption, which has attention."""
        assert caption.attention is not None
        photograph = Image.fromarray(load_for_model(name, self._image))  # as the model saw it
        shape = _size(name) if self._image.resize == "squash" else photograph.size
        seen = _inline(lambda file: photograph.save(file, "JPEG", quality=85), "jpeg")
        tiles = [_tile("the photograph", shape, seen)]
        words = [word for word, _ in zip(caption.tokens, caption.attention, strict=False)]
        tiles += [
            _tile(word, shape, seen, _cover(looked)) for word, looked in zip(words, caption.attention, strict=True)
        ]
        title, file = html.escape(caption.text), html.escape(name)
        self._parts.append(f'<section><h2>{title}</h2><p>{file}</p><div class="words">{"".join(tiles)}</div></section>')

    def close(self) -> None:
        """Writes the page. Raises OSError."""
        partial = self.path.with_name(f".{self.path.name}.partial")
        partial.write_text("\n".join([*self._parts, ""]), encoding="utf-8", errors="replace")
        partial.replace(self.path)


def _cover(looked: np.ndarray) -> str:
    """Returns a picture that covers what was not looked at, for a map (height, width), as a URL."""
    share = looked / max(float(looked.max()), 1e-9)
    shade = np.zeros((*looked.shape, 4), np.uint8)  # black
    shade[..., 3] = np.round(DARKEST * (1 - share))
    large = Image.fromarray(shade, "RGBA").resize((96, 96), Image.Resampling.BICUBIC)
    return _inline(lambda file: large.save(file, "PNG", optimize=True), "png")


def _tile(word: str, shape: tuple[int, int], *layers: str) -> str:
    pictures = "".join(f'<img src="{layer}" alt="" loading="lazy">' for layer in layers)
    ratio = f"aspect-ratio: {shape[0]} / {shape[1]}"
    return f'<figure><div style="{ratio}">{pictures}</div><figcaption>{html.escape(word)}</figcaption></figure>'


def _size(name: str) -> tuple[int, int]:
    """Returns width and height of a photograph held upright."""
    with Image.open(name) as image:
        width, height = image.size
        turned = image.getexif().get(ORIENTATION, 1) in SIDEWAYS
    return (height, width) if turned else (width, height)


def _inline(save: Callable[[BytesIO], object], kind: str) -> str:
    file = BytesIO()
    save(file)
    return f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}"
