"""Photographs small enough to stand inside a page."""

import base64
import html
from collections.abc import Callable
from io import BytesIO

from PIL import Image, ImageOps

from engine.errors import ImageError
from engine.images.load import load_pixels


def picture(name: str, read: Callable[[str], bytes], side: int = 256) -> str:
    """Returns the HTML element of a photograph; where it cannot be read or decoded, its name and why, in its place."""
    try:
        address = inline(thumbnail(read(name), side), "jpeg")
    except (OSError, ImageError) as error:
        why = error.reason if isinstance(error, ImageError) else str(error)
        return f"<p><b>{html.escape(name)}</b> cannot be shown: {html.escape(why)}</p>"
    return f'<img src="{address}" alt="{html.escape(name)}" loading="lazy">'


def thumbnail(content: bytes, side: int = 256) -> bytes:
    """Returns an encoded photograph as a JPEG at most `side` pixels wide and high, decoded as the engine does.

    Raises ImageError.
    """
    try:
        with Image.open(BytesIO(content)) as image:
            width, height = ImageOps.exif_transpose(image).size
    except Exception:  # on broken input Pillow raises nearly anything: what decodes it says what is wrong
        width, height = side, side
    scale = min(1, side / max(width, height, 1))
    small = load_pixels(content, height=max(1, round(scale * height)), width=max(1, round(scale * width)))
    output = BytesIO()
    Image.fromarray(small).save(output, "JPEG", quality=80)
    return output.getvalue()


def inline(content: bytes, kind: str) -> str:
    """Returns a picture, "jpeg" or "png", as a data: address."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
