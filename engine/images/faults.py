"""What is said of an image that cannot be read: its name, and why. Reads nothing."""

import os
import traceback

import numpy as np
from PIL import Image

from engine.errors import RefusalError


def describe(source: object) -> str:
    """Returns a short name of an input for messages: its path, or what it is and how large. Never raises."""
    try:
        return _name(source)
    except Exception:  # what a path or a file object of somebody else's may do
        return f"{type(source).__name__} object"


def _name(source: object) -> str:
    if isinstance(source, str | os.PathLike):
        path = os.fsdecode(source)
        return path if path.isprintable() and path else ascii(path)
    if isinstance(source, bytes | bytearray):
        return f"{len(source):,} bytes"
    if isinstance(source, memoryview):
        return f"{source.nbytes:,} bytes"
    if isinstance(source, np.ndarray):
        return f"array {source.shape} {source.dtype}"
    if isinstance(source, Image.Image):
        return f"PIL image {source.width} x {source.height} {source.mode}"
    name = getattr(source, "name", None)
    return f"file {_name(name)}" if isinstance(name, str) else f"{type(source).__name__} object"


def reason_of(error: Exception) -> str:
    """Returns in words why an image could not be read."""
    match error:
        case RefusalError():
            return str(error)
        case FileNotFoundError() | NotADirectoryError():
            return "there is no such file"
        case IsADirectoryError():
            return "is a folder, not an image file"
        case PermissionError():
            return "may not be read: permission denied"
        case Image.DecompressionBombError():
            return "cannot be decoded: its first picture has more pixels than the file says of itself, and too many"
        case MemoryError():
            return "cannot be decoded: it needs more memory than there is"
        case ValueError() if "MAX_TEXT_" in str(error):  # Pillow's advice to programmers
            return "cannot be decoded: its texts or its colour profile unpack to too much; save it without them"
        case OSError(strerror=str(why)) if error.errno is not None:
            return f"cannot be read: {why}"
    return f"cannot be decoded: {' '.join(str(error).split()) or type(error).__name__}"


def forget_pictures(error: BaseException, outer: BaseException | None) -> None:
    """Lets go of what the frames of an error hold: whoever keeps the error would keep a decoded picture.

    outer: one that was there before, which is left as it is, with all that led to it.
    """
    seen = {id(outer)}
    found: list[BaseException | None] = [error]
    while found:
        each = found.pop()
        if each is not None and id(each) not in seen:
            seen.add(id(each))
            traceback.clear_frames(each.__traceback__)
            found += (each.__cause__, each.__context__)
