"""Opening the SQLite file of an index, and what SQLite says, in words. Knows no tables."""

import sqlite3
import time
from pathlib import Path

from engine.errors import StoreError

WAIT = 60.0  # seconds for another process to finish writing


def connect(path: Path, *, create: bool) -> sqlite3.Connection:
    """Opens the file: to write if possible, otherwise to read, even where no file beside it can be made."""
    if create:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(f"{path}: its folder cannot be made ({error.strerror}): name another file") from error
    elif not path.exists():
        raise StoreError(f"there is no index {path}: `python -m engine index PHOTOS --index {path}` makes one")
    ways = ["rwc"] if create else ["rw", "ro", "ro&immutable=1"]
    for mode in ways:
        connection = sqlite3.connect(
            f"{path.absolute().as_uri()}?mode={mode}", uri=True, timeout=WAIT, check_same_thread=False
        )
        connection.isolation_level = None  # transactions begin where this module says so
        try:
            connection.execute("SELECT count(*) FROM sqlite_master").fetchall()
        except sqlite3.OperationalError as error:
            connection.close()
            if mode == ways[-1] or _code(error) == sqlite3.SQLITE_BUSY:
                raise
        except BaseException:
            connection.close()
            raise
        else:
            return connection
    raise AssertionError("the last way returns or raises")


def write_ahead(connection: sqlite3.Connection) -> None:
    """Puts a file into write-ahead mode, for which SQLite itself does not wait while another process makes the file."""
    ends = time.monotonic() + WAIT
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if _code(error) != sqlite3.SQLITE_BUSY or time.monotonic() > ends:
                raise
            time.sleep(0.01)
        else:
            return


def identity(path: Path) -> tuple[int, int] | None:
    """Returns what tells a file from another one of the same name; None if there is none."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def reason(error: sqlite3.Error) -> str:
    """Returns what is wrong, and what to do, in words."""
    known = {
        sqlite3.SQLITE_READONLY: "it may not be written: change its permissions, or name another file",
        sqlite3.SQLITE_CANTOPEN: "it cannot be opened: check the folder and its permissions",
        sqlite3.SQLITE_PERM: "it cannot be opened: check its permissions",
        sqlite3.SQLITE_FULL: "the disk is full: make room and run the same command again",
        sqlite3.SQLITE_NOTADB: "it is no index of photographs: name another file",
        sqlite3.SQLITE_CORRUPT: "it is damaged: delete it and index the photographs again",
        sqlite3.SQLITE_BUSY: f"another process has been writing for more than {WAIT:.0f} seconds: try again later",
        sqlite3.SQLITE_IOERR: "the disk could not be read or written: check it, and the room on it",
    }
    return known.get(_code(error), str(error))


def _code(error: sqlite3.Error) -> int:
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF
