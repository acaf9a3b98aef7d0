"""Error messages for images that cannot be read: their name and the reason. Reads nothing."""

import os
import traceback

import numpy as np
from PIL import Image

from engine.errors import RefusalError


def describe(source: object) -> str:
    """Returns a short name of an input for messages: its path, or its type and size. Never raises."""
    try:
        return _name(source)
    except Exception:  # custom path and file objects may raise anything
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
    """Returns the reason why an image could not be read, as text."""
    match error:
        case RefusalError():
            return str(error)
        case FileNotFoundError() | NotADirectoryError():
            return "there is no such file"
        case IsADirectoryError():
            return "is a folder, not an image file"
        case PermissionError():
            return "cannot be read: permission denied"
        case Image.DecompressionBombError():
            return "cannot be decoded: its first image is larger than the file's header says, and too large"
        case MemoryError():
            return "cannot be decoded: it needs more memory than is available"
        case ValueError() if "MAX_TEXT_" in str(error):  # Pillow's advice to programmers
            return "cannot be decoded: its text or colour profile is too large when unpacked; save it without them"
        case OSError(strerror=str(why)) if error.errno is not None:
            return f"cannot be read: {why}"
    return f"cannot be decoded: {' '.join(str(error).split()) or type(error).__name__}"


def forget_pictures(error: BaseException, outer: BaseException | None) -> None:
    """Clears the frames of an error, so that keeping the error does not keep a decoded image in memory.

    outer: an earlier error, which is left unchanged with its causes.
    """
    seen = {id(outer)}
    found: list[BaseException | None] = [error]
    while found:
        each = found.pop()
        if each is not None and id(each) not in seen:
            seen.add(id(each))
            traceback.clear_frames(each.__traceback__)
            found += (each.__cause__, each.__context__)
