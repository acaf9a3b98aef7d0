"""Writes folders atomically. Knows nothing of what is in them."""

import ctypes
import os
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_A_DAY = 24 * 3600.0
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2  # linux/fcntl.h, linux/fs.h


@contextmanager
def staged(target: Path) -> Iterator[Path]:
    """Yields an empty folder beside `target`, which replaces target when the block ends without an error.

    On an error the folder is removed and `target` is untouched. A killed process leaves either the complete old folder
    or the complete new one, and at worst a hidden one beside it (`.NAME.*`), which is removed by the first use a day
    later. If the system cannot exchange two folders atomically, the old one is renamed first; a kill at that moment
    leaves it complete under a hidden name that ends in `.old` and is never removed.
    """
    target = target.resolve()
    target.parent.mkdir(parents=True, exist_ok=True)
    for leftover in target.parent.glob(f".{target.name}.*.partial"):
        if time.time() - leftover.stat().st_mtime > _A_DAY:
            shutil.rmtree(leftover, ignore_errors=True)
    name = f".{target.name}.{uuid.uuid4().hex[:8]}"
    folder = target.with_name(f"{name}.partial")
    folder.mkdir()
    try:
        yield folder
        for path in (*folder.iterdir(), folder):
            _flush(path)
        _publish(folder, target, aside=target.with_name(f"{name}.old"))
        _flush(target.parent)
    finally:
        shutil.rmtree(folder, ignore_errors=True)  # after an exchange this is the old target


def _publish(folder: Path, target: Path, aside: Path) -> None:
    """Renames `folder` to `target`. The old target is left under the name of `folder`, or removed."""
    if not target.exists():
        folder.rename(target)
    elif not _exchange(folder, target):
        target.rename(aside)
        try:
            folder.rename(target)
        except BaseException:
            aside.rename(target)
            raise
        shutil.rmtree(aside, ignore_errors=True)


def _exchange(one: Path, other: Path) -> bool:
    """Swaps two paths atomically; returns False if the operating or file system cannot."""
    try:
        renameat2 = ctypes.CDLL(None).renameat2
    except (AttributeError, OSError, TypeError):  # not Linux
        return False
    status: int = renameat2(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE)
    return status == 0


def _flush(path: Path) -> None:
    """Flushes a file or folder to the disk; Windows cannot do that for folders."""
    if path.is_dir() and os.name == "nt":
        return
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() or os.name != "nt" else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
