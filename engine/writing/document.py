"""A text file that is amended in places. Owns encodings, edits and safe replacement; knows no format."""

import codecs
import os
import secrets
import shutil
import stat
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from engine.errors import DocumentError

MOST_BYTES = 64_000_000  # far more than people write by hand, far less than would fill the memory
MARKS = (  # the longer ones first: that of UTF-32 begins like that of UTF-16
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)


@dataclass(frozen=True, slots=True)
class Edit:
    """New text in place of the characters from start to end; an insertion if these are equal."""

    start: int
    end: int
    new: str


@dataclass(frozen=True, slots=True)
class Document:
    """The text of a file, from which its bytes can be had back. mark: its byte order mark, or b""."""

    text: str
    encoding: str
    mark: bytes = b""

    @classmethod
    def of(cls, data: bytes, encodings: Sequence[str]) -> "Document":
        """Decodes bytes by their byte order mark, or by the first of these encodings that gives them back unchanged.

        Raises DocumentError if there is none.
        """
        mark, marked = next(((mark, name) for mark, name in MARKS if data.startswith(mark)), (b"", ""))
        for encoding in (marked,) if marked else encodings:
            with suppress(UnicodeError, LookupError):
                text = data[len(mark) :].decode(encoding)
                if text.encode(encoding) == data[len(mark) :]:
                    return cls(text, encoding, mark)
        tried = marked or " or ".join(dict.fromkeys(encodings))
        raise DocumentError(f"is not text in the encoding {tried}, so it is left as it is")

    def edited(self, edits: Iterable[Edit]) -> bytes:
        """Returns the file with these edits, which must not overlap; all else is the same, byte for byte.

        Characters that the encoding does not have are written as &#...;, which XML, HTML and Markdown know.
        """
        parts, done = [], 0
        for edit in sorted(edits, key=lambda edit: (edit.start, edit.end)):
            assert edit.start >= done
            parts += [self.text[done : edit.start], edit.new]
            done = edit.end
        text = "".join([*parts, self.text[done:]])
        return self.mark + text.encode(self.encoding, "xmlcharrefreplace")

    @property
    def newline(self) -> str:
        """How its lines end."""
        return "\r\n" if "\r\n" in self.text else "\n"


def read_file(path: Path) -> bytes:
    """Returns the content of a regular file of moderate size. Raises DocumentError."""
    try:
        if not stat.S_ISREG((about := path.stat()).st_mode):
            raise DocumentError("is no regular file")
        if about.st_size > MOST_BYTES:
            raise DocumentError(f"has {about.st_size:,} bytes, and at most {MOST_BYTES:,} are read")
        return path.read_bytes()
    except OSError as error:
        raise DocumentError(f"cannot be read: {error.strerror or error}") from error


def check_writable(path: Path) -> None:
    """Raises DocumentError if a file is there and protected: a replacement would write to it all the same."""
    if path.exists() and not (path.stat().st_mode & 0o222 and os.access(path, os.W_OK)):
        raise DocumentError("is read-only: allow writing to it")


def replace_file(path: Path, data: bytes) -> None:
    """Writes a file at once or not at all, and keeps its permissions; a link stays one. Raises DocumentError."""
    try:
        path = path.resolve()
        check_writable(path)
        partial = path.with_name(f".{secrets.token_hex(8)}.partial")
        try:
            with partial.open("xb") as file:
                file.write(data)
                file.flush()
                if path.exists():  # what people wrote is not lost if the machine stops just now
                    os.fsync(file.fileno())
            if path.exists():
                shutil.copymode(path, partial)
                about = path.stat()
                with suppress(OSError, AttributeError):  # only root may, and Windows has no owners
                    os.chown(partial, about.st_uid, about.st_gid)
            partial.replace(path)
        except BaseException:
            with suppress(OSError):
                partial.unlink()
            raise
    except OSError as error:
        raise DocumentError(f"cannot be written: {error.strerror or error}") from error
