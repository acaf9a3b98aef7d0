"""Photographs small enough to stand inside a page."""

import base64
from io import BytesIO

from PIL import Image, ImageOps


def thumbnail(content: bytes, side: int = 256) -> str:
    """Returns an encoded photograph as a data: address of a JPEG that is at most `side` pixels wide and high.

    Raises OSError when the photograph cannot be read.
    """
    with Image.open(BytesIO(content)) as image:
        small = ImageOps.exif_transpose(image).convert("RGB")
    small.thumbnail((side, side))
    output = BytesIO()
    small.save(output, "JPEG", quality=80)
    return f"data:image/jpeg;base64,{base64.b64encode(output.getvalue()).decode()}"
