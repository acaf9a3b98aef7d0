"""The files of indexed photographs, and small copies of them that are kept in the cache folder. Knows no index.

A file is used only if its bytes are those that were indexed: what has since taken its place was never in the index.
"""

import hashlib
import io
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import BinaryIO

from PIL import Image

from engine.cache import cache_folder, store
from engine.errors import ImageError
from engine.images.load import ImageInput, load_thumbnail
from engine.search.photo import Photo, is_uri

SIDE = 360  # pixels of a thumbnail's longer side
KIND = "thumbnails"  # their folder in the cache folder
MOST_BYTES = 2**30
"""Of all that are kept, about 60,000. They are spread over 256 folders by their digests, each with an equal share."""
CHUNK = 2**20


def as_jpeg(source: ImageInput, side: int, *, max_pixels: int, formats: Sequence[str]) -> bytes:
    """Returns an image, upright, as a JPEG with this longer side. Raises ImageError."""
    file = io.BytesIO()
    Image.fromarray(load_thumbnail(source, side, max_pixels=max_pixels, formats=formats)).save(file, "JPEG", quality=82)
    return file.getvalue()


def open_photo(photo: Photo) -> BinaryIO:
    """Opens a file of a photograph whose bytes are those that were indexed. Raises ImageError if there is none."""
    for path in _there(photo):
        with ExitStack() as stack, suppress(OSError):
            file = stack.enter_context(open(path, "rb", opener=_opener))
            if _digest(file) == photo.sha256:
                file.seek(0)
                stack.pop_all()  # the caller closes it
                return file
    raise _gone(photo)


def thumbnail(photo: Photo, side: int, *, max_pixels: int, formats: Sequence[str]) -> bytes:
    """Returns a photograph as a JPEG with this longer side: the one that is kept, or else one that is kept from now on.

    Raises ImageError if none of its files is there, or if it cannot be read.
    """
    folder = cache_folder()
    kept = folder and folder / KIND / photo.sha256[:2] / f"{photo.sha256}-{side}.jpg"
    if next(_there(photo), None) is None:
        raise _gone(photo)
    with suppress(OSError):
        if kept and _is_whole(found := kept.read_bytes()):
            return found
    with open_photo(photo) as file:
        made = as_jpeg(file, side, max_pixels=max_pixels, formats=formats)
    if kept and store(kept, made):
        _bound(kept.parent, MOST_BYTES // 256)
    return made


def _there(photo: Photo) -> Iterator[str]:
    """Yields the paths of regular files that may be the photograph by their size."""
    for path in photo.paths:
        with suppress(OSError, ValueError):
            status = os.stat(path)  # noqa: PTH116 - Path raises on some names
            if not is_uri(path) and stat.S_ISREG(status.st_mode) and status.st_size == photo.size:
                yield path


def _opener(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))  # a pipe that took the place of a file waits for nobody


def _digest(file: BinaryIO) -> str:
    digest = hashlib.sha256()
    while chunk := file.read(CHUNK):
        digest.update(chunk)
    return digest.hexdigest()


def _is_whole(content: bytes) -> bool:
    """Tells whether a JPEG has its beginning and end: after a power cut a file may be there without its content."""
    return content.startswith(b"\xff\xd8") and content.endswith(b"\xff\xd9")


def _bound(folder: Path, most: int) -> None:
    """Deletes the oldest files of a folder until the others have no more than three quarters of these bytes."""
    with suppress(OSError), os.scandir(folder) as entries:
        files = sorted((each.stat().st_mtime, each.path, each.stat().st_size) for each in entries)
        held = sum(size for *_, size in files)
        if held <= most:
            return
        for _, path, size in files:
            if held <= most * 3 // 4:
                break
            with suppress(OSError):  # another process deletes as well
                Path(path).unlink()
            held -= size


def _gone(photo: Photo) -> ImageError:
    source = photo.path or f"photograph {photo.id}"
    if photo.paths and all(map(is_uri, photo.paths)):
        return ImageError("is not on this machine", source=source)
    return ImageError("is gone, or was changed since it was indexed", source=source, advice="index it again")
