"""Gets the bytes of image files and what is known of them, some in advance. Knows no model and no parts."""

import errno
import hashlib
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from pyarrow.fs import FileSystem, FileType, LocalFileSystem

from serving.ray_places import ESCAPED, locate, one_line

FETCHES = 16  # images that are fetched at the same time, to hide the latency of an object store
MAX_BYTES = 256 * 1024**2  # of an image file


class Unread:
    """An image that could not be fetched: looks like a file, and raises the reason when the captioner reads it."""

    def __init__(self, why: str | Exception) -> None:
        if not isinstance(why, OSError) or why.errno is None:  # without a number it would count as broken content
            why = OSError(errno.EIO, why if isinstance(why, str) else one_line(why))
        self._why = why

    def read(self) -> bytes:
        """Raises the error of fetching."""
        raise self._why


@dataclass(frozen=True, slots=True)
class Fetched:
    """An image's bytes, and what an index needs to know of them if it was asked for.

    sha256: of the bytes, in hexadecimal. modified: of the file, in nanoseconds since 1970; None if its source does not
    say.
    """

    image: "bytes | Unread"
    sha256: str | None = None
    size: int | None = None
    modified: int | None = None

    @classmethod
    def of(cls, value: bytes | None, modified: int | None = None, *, identified: bool) -> "Fetched":
        """Returns an image from its bytes. identified: with their checksum and size."""
        if value is None:
            return cls(Unread("the value is null"))
        if not identified:
            return cls(value)
        return cls(value, hashlib.sha256(value).hexdigest(), len(value), modified)


class Fetcher:
    """Threads that fetch files. identified: images are wanted with checksum, size and time."""

    def __init__(self, *, identified: bool) -> None:
        self._pool = ThreadPoolExecutor(FETCHES, "fetch")
        self._identified = identified

    def fetched(self, places: Iterator[tuple[FileSystem, str | None]]) -> Iterator[Fetched]:
        """Yields files in order, fetching some in advance. A place is a path in a file system, or a URI."""
        ahead: deque[Future[Fetched]] = deque()
        for system, path in places:
            ahead.append(self._pool.submit(self._fetch, system, path))
            if len(ahead) > 2 * FETCHES:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()

    def _fetch(self, system: FileSystem, path: str | None) -> Fetched:
        modified = None
        try:
            if path is None:
                return Fetched.of(None, identified=False)
            if "://" in path:
                system, path = locate(path)
            if self._identified or isinstance(system, LocalFileSystem):
                info = system.get_file_info(path)  # before reading: a change meanwhile is seen later
                if isinstance(system, LocalFileSystem) and info.type == FileType.Unknown:
                    return Fetched(Unread("it is not a regular file"))  # a pipe may never end
                modified = info.mtime_ns
            with system.open_input_stream(path) as stream:
                content: bytes = stream.read(MAX_BYTES + 1)
        except Exception as error:  # whatever it is, only this image is affected
            unnamed = isinstance(error, FileNotFoundError) and path is not None and ESCAPED.search(path)
            return Fetched(Unread("its name is not UTF-8: rename it" if unnamed else error), modified=modified)
        if len(content) > MAX_BYTES:
            return Fetched(Unread(f"it has more than {MAX_BYTES:,} bytes"), modified=modified)
        return Fetched.of(content, modified, identified=self._identified)
