"""From files to an index: which files are new, their captions, features and vectors. Knows no database's tables."""

import errno
import hashlib
import os
import stat
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path

import numpy as np

from engine.errors import ImageError
from engine.images.paths import Scan, expand
from engine.model import Model
from engine.options import Beam
from engine.result import Caption
from engine.search.photo import Described, File, as_stored, sentences_of
from engine.search.store import Store
from engine.search.table import as_direction

ALTERNATIVES = Beam(num_hypotheses=3)
"""The bundle's beam search; its three best sentences are kept."""
READERS = 2  # threads that read and hash files
READ_AHEAD = 8  # files, besides the batch that waits for the encoder
ASKED_AT_ONCE = 512  # files that the index is asked about together
MAX_BYTES = 1024**3  # of a file: larger ones are no photographs
UNREAD = -1  # the size of a file that could not be read: it differs from any, so the next pass tries again
Vectors = Callable[[np.ndarray], np.ndarray]


@dataclass(slots=True)
class Added:
    """What became of files. captioned: photographs; copies: files of photographs that were known; unchanged: files.

    errors: files without a caption, with the reason. missing: files of the folders that are gone. left_out: what is in
    the folders besides images, as a sentence. changed: files whose captions were made elsewhere, and that changed or
    went since; `add` of their folder captions what is new in them.
    """

    files: int = 0
    captioned: int = 0
    copies: int = 0
    unchanged: int = 0
    errors: dict[str, str] = field(default_factory=dict)
    missing: int = 0
    left_out: str = ""
    changed: int = 0

    @property
    def done(self) -> int:
        """Files that are finished."""
        return self.captioned + self.copies + self.unchanged + self.changed + len(self.errors)


@dataclass(frozen=True, slots=True)
class _Read:
    """A file that was read, and its bytes; without them if it could not be."""

    file: File
    content: bytes = b""


class Indexing:
    """One pass over files and folders. What is written stays when it is interrupted."""

    def __init__(
        self,
        store: Store,
        model: Model,
        vectors: Vectors | None,
        scan: Scan,
        *,
        report: Callable[[Added], None],
        retry: bool = False,
    ) -> None:
        """vectors: of features (photos, *feature_shape), unit vectors (photos, size). report: called as files end.

        retry: reads files again that had an error, even if they are unchanged.
        """
        self._store, self._model, self._vectors, self._report = store, model, vectors, report
        self._scan, self._retry = scan, retry
        self._added = Added()
        self._begun: deque[File] = deque()  # photographs in the encoder, in order
        self._copies: dict[bytes, list[File]] = {}  # by digest: files that wait for the caption of equal ones
        self._ended: list[File] = []  # files to write that need no caption
        self._gone: set[bytes] = set()

    def run(self, paths: Sequence[str]) -> Added:
        """Captions what is new in files and folders, and marks what is gone from the folders. Raises StoreError."""
        found = list(dict.fromkeys(as_stored(path) for name in paths for path in expand(name, (), self._scan)))
        self._added.files = len(found)
        self._added.left_out = str(self._scan)
        self._mark_missing(paths, found)
        self._report(self._added)
        with ThreadPoolExecutor(READERS, "index") as pool:
            for encoded in self._model.encode_batches(self._new_photographs(found, pool), fail=False):
                files = [self._begun.popleft() for _ in encoded.errors]
                features = np.asarray(encoded.features)
                captions = self._model.caption_features(features, ALTERNATIVES) if len(features) else []
                self._write(files, encoded.errors, features, captions)
        self._write((), (), np.empty(0), ())
        return self._added

    def _mark_missing(self, paths: Sequence[str], found: Sequence[bytes]) -> None:
        seen = set(found)
        # a folder that is gone, too
        folders = [as_stored(path) for path in paths if not os.path.isfile(path)]  # noqa: PTH113 - Path raises on some
        gone = {
            path
            for folder in folders
            for path in self._store.files_in(folder)
            if path not in seen and not os.path.isfile(path)  # noqa: PTH113 - something else may have taken its place
        }
        gone |= {path for path in self._store.known(sorted(seen)) if not os.path.lexists(path)} if seen else set()
        if gone:
            self._store.mark_missing(sorted(gone))
        self._added.missing, self._gone = len(gone), gone

    def _new_photographs(self, paths: Iterable[bytes], pool: ThreadPoolExecutor) -> Iterator[bytes]:
        """Yields the bytes of files that need a caption; notes the others."""
        ahead: deque[Future[_Read]] = deque()
        for path in self._changed(paths):
            ahead.append(pool.submit(_read, path))
            if len(ahead) > READ_AHEAD:
                yield from self._sorted_out(ahead.popleft().result())
        while ahead:
            yield from self._sorted_out(ahead.popleft().result())

    def _changed(self, paths: Iterable[bytes]) -> Iterator[bytes]:
        """Yields the files that are new, were changed since they were indexed, or have captions by another bundle."""
        files = (path for path in paths if path not in self._gone)
        while some := list(islice(files, ASKED_AT_ONCE)):
            known = self._store.known(some)
            for path in some:
                was = known.get(path)
                finished = was and not was.missing and (was.current or (was.error and not self._retry))
                if was is None or not finished or stamp(path) != (was.size, was.modified):
                    yield path
                elif was.error:
                    self._added.errors[os.fsdecode(path)] = was.error
                else:
                    self._added.unchanged += 1
            self._report(self._added)

    def _sorted_out(self, read: _Read) -> Iterator[bytes]:
        """Yields the content of a file if it needs a caption; otherwise notes what the file is."""
        file = read.file
        if file.error and not os.path.lexists(file.path):
            self._added.errors[os.fsdecode(file.path)] = file.error
        elif file.error:
            self._ended.append(file)
        elif file.digest in self._copies:
            self._copies[file.digest].append(file)
        elif self._store.described([file.digest]):
            self._ended.append(file)
        else:
            self._copies[file.digest] = []
            self._begun.append(file)
            yield read.content
        if len(self._ended) >= ASKED_AT_ONCE:
            self._write((), (), np.empty(0), ())

    def _write(
        self,
        files: Sequence[File],
        errors: Sequence[ImageError | None],
        features: np.ndarray,
        captions: Sequence[Caption],
    ) -> None:
        """Writes a batch: its files with their errors, captions and features of those without, and what has ended."""
        good = [file for file, error in zip(files, errors, strict=True) if error is None]
        written: list[File] = []
        for file, error in zip(files, errors, strict=True):
            same = [file, *self._copies.pop(file.digest)]
            if error is not None:
                same = [replace(each, error=error.explanation) for each in same]
            written += same
        ended, self._ended = self._ended, []
        vectors = as_direction(self._vectors(features)) if self._vectors and good else [None] * len(good)
        described = [
            Described(
                file.digest,
                sentences_of(caption),
                row.astype(np.float16),
                vector,
            )
            for file, caption, row, vector in zip(good, captions, features, vectors, strict=True)
        ]
        if written or ended:
            self._store.write(described, [*written, *ended])
        self._added.captioned += len(described)
        failed = {os.fsdecode(file.path): file.error for file in (*written, *ended) if file.error}
        self._added.errors |= failed
        self._added.copies += len(written) + len(ended) - len(failed) - len(described)
        self._report(self._added)


def stamp(path: bytes) -> tuple[int, int] | None:
    """Returns the size and time of a file, None if there is none: what tells that it has not changed."""
    try:
        status = os.stat(path)  # noqa: PTH116 - paths are bytes
    except (OSError, ValueError):
        return None
    return status.st_size, status.st_mtime_ns


def _read(path: bytes) -> _Read:
    """Reads a file. Its size and time are those before it was read: a change meanwhile is found by the next pass."""
    size, modified = stamp(path) or (0, 0)
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # noqa: PTH116
            raise OSError(errno.EINVAL, "it is no regular file")  # a pipe might never end
        if size > MAX_BYTES:
            raise OSError(errno.EFBIG, f"it has {size:,} bytes, and {MAX_BYTES:,} are the most that are read")
        content = Path(os.fsdecode(path)).read_bytes()
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        return _Read(File(path, UNREAD, modified, b"", why))
    return _Read(File(path, size, modified, hashlib.sha256(content).digest()), content)
