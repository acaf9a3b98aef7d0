"""Writes folders atomically. Knows nothing of what is in them."""

import os
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_A_DAY = 24 * 3600.0


@contextmanager
def staged(target: Path) -> Iterator[Path]:
    """Yields an empty folder beside `target`, which replaces target when the block ends without an error.

    On an error the folder is removed and `target` is untouched. A killed process leaves either the complete old folder
    or the complete new one, and at worst a hidden one beside it (`.NAME.*`), which is removed by the first use a day
    later. A kill between the two renames leaves the old folder complete under a hidden name that ends in `.old` and is
    never removed.
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
        shutil.rmtree(folder, ignore_errors=True)


def _publish(folder: Path, target: Path, aside: Path) -> None:
    """Renames `folder` to `target`, and removes the old target."""
    if not target.exists():
        folder.rename(target)
        return
    target.rename(aside)
    try:
        folder.rename(target)
    except BaseException:
        aside.rename(target)
        raise
    shutil.rmtree(aside, ignore_errors=True)


def _flush(path: Path) -> None:
    """Flushes a file or folder to the disk; Windows cannot do that for folders."""
    if path.is_dir() and os.name == "nt":
        return
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() or os.name != "nt" else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
