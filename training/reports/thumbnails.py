"""Photographs small enough to embed in a page."""

import base64
import html
from collections.abc import Callable
from io import BytesIO

from PIL import Image, ImageOps

from engine.errors import ImageError
from engine.images.load import load_pixels


def picture(name: str, read: Callable[[str], bytes], side: int = 256) -> str:
    """Returns the HTML element of a photograph, or its name and the reason if it cannot be read or decoded."""
    try:
        address = inline(thumbnail(read(name), side), "jpeg")
    except (OSError, ImageError) as error:
        why = error.reason if isinstance(error, ImageError) else str(error)
        return f"<p><b>{html.escape(name)}</b> cannot be shown: {html.escape(why)}</p>"
    return f'<img src="{address}" alt="{html.escape(name)}" loading="lazy">'


def thumbnail(content: bytes, side: int = 256) -> bytes:
    """Returns a photograph as a JPEG of at most `side` pixels in width and height. Raises ImageError."""
    output = BytesIO()
    shrink(content, side).save(output, "JPEG", quality=80)
    return output.getvalue()


def shrink(content: bytes, side: int) -> Image.Image:
    """Returns a photograph in RGB with at most `side` pixels in width and height, decoded as in the engine.

    Raises ImageError.
    """
    try:
        with Image.open(BytesIO(content)) as image:
            width, height = ImageOps.exif_transpose(image).size
    except Exception:  # Pillow may raise nearly anything on broken input
        width, height = side, side
    scale = min(1, side / max(width, height, 1))
    return Image.fromarray(
        load_pixels(content, height=max(1, round(scale * height)), width=max(1, round(scale * width)))
    )


def inline(content: bytes, kind: str) -> str:
    """Returns a "jpeg" or "png" image as a data: URL."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
