"""A page of photographs that shows where the model looked for each word. Knows nothing of models."""

import base64
import html
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image
from PIL.ExifTags import Base

from engine.errors import ImageError
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
figure div { background: var(--seen) 0 0 / 100% 100%; }
figure img { display: block; width: 100%; height: 100%; }
figcaption { text-align: center; overflow-wrap: anywhere; }
"""


class AttentionPage:
    """Collects photographs, and writes the page when it is closed; until then the file stays as it was."""

    def __init__(self, path: Path, resize: str, load: Callable[[str], np.ndarray], title: str) -> None:
        """load: returns a photograph as the model saw it, uint8 (height, width, 3), by the rule `resize`."""
        self.path = path
        self._resize = resize
        self._load = load
        self._parts = [
            "<!doctype html>",
            '<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">',
            f"<title>{html.escape(title)}</title><style>{STYLE}</style><h1>{html.escape(title)}</h1>",
        ]

    def add(self, name: str, caption: Caption) -> None:
        """Adds the photograph of this path with its caption, which has attention.

        A photograph that cannot be read a second time gets a sentence in place of its pictures.
        """
        assert caption.attention is not None
        head = f"<h2>{html.escape(caption.text)}</h2><p>{html.escape(name)}</p>"
        try:
            if not Path(name).is_file():  # to open a pipe again would wait for its writer
                raise FileNotFoundError("it is no file that can be read twice")
            photograph = Image.fromarray(self._load(name))
        except (ImageError, OSError) as error:
            why = error.reason if isinstance(error, ImageError) else str(error)
            self._parts.append(f"<section>{head}<p>It cannot be shown: {html.escape(why)}</p></section>")
            return
        shape = (self._resize == "squash" and _size(name)) or photograph.size
        seen = _inline(lambda file: photograph.save(file, "JPEG", quality=85), "jpeg")
        # the tokens of a finished sentence end in one that is no word and has no map
        pairs = zip(caption.tokens, caption.attention, strict=False)
        tiles = [_tile("the photograph", shape), *(_tile(word, shape, _cover(looked)) for word, looked in pairs)]
        words = f'<div class="words">{"".join(tiles)}</div>'
        self._parts.append(f"<section style=\"--seen: url('{seen}')\">{head}{words}</section>")

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


def _tile(word: str, shape: tuple[int, int], cover: str = "") -> str:
    """Returns the photograph, under a cover if there is one; shape: its width and height."""
    picture = f'<img src="{cover}" alt="">' if cover else ""
    ratio = f"aspect-ratio: {shape[0]} / {shape[1]}"
    return f'<figure><div style="{ratio}">{picture}</div><figcaption>{html.escape(word)}</figcaption></figure>'


def _size(name: str) -> tuple[int, int] | None:
    """Returns width and height of a photograph held upright, or None if Pillow alone does not read it."""
    try:
        with Image.open(name) as image:
            width, height = image.size
            turned = image.getexif().get(ORIENTATION, 1) in SIDEWAYS
    except Exception:  # Pillow may raise nearly anything
        return None
    return (height, width) if turned else (width, height)


def _inline(save: Callable[[BytesIO], object], kind: str) -> str:
    file = BytesIO()
    save(file)
    return f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}"
