"""The cache folder for what the engine measured or built on this machine. Knows nothing of what its files say.

They may be deleted at any time; they are then measured or built again.
"""

import json
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from engine.bundle.bundle import MANIFEST_FILE, digest, sha256

VARIABLE = "CAPTIONING_ENGINE_CACHE"
NAME = "captioning-engine"


def cache_folder() -> Path | None:
    """Returns the folder, which may not exist yet; None if this user has no home and the environment names no folder.

    It is the one in CAPTIONING_ENGINE_CACHE, else captioning-engine in XDG_CACHE_HOME, else in the system's usual
    cache folder (~/.cache; ~/Library/Caches on macOS; %LOCALAPPDATA% on Windows).
    """
    if chosen := os.environ.get(VARIABLE):
        return Path(chosen).expanduser().absolute()
    if (base := _from_environment("XDG_CACHE_HOME")) is not None:
        return base / NAME
    if sys.platform == "win32" and (base := _from_environment("LOCALAPPDATA")) is not None:
        return base / NAME
    try:
        home = Path.home()
    except RuntimeError:  # a user without a passwd entry, as in some containers
        return None
    return home / ("Library/Caches" if sys.platform == "darwin" else ".cache") / NAME


def store(path: Path, data: bytes) -> bool:
    """Writes a file atomically, creating its folders; returns whether it could. A full disk is not an error."""
    import tempfile  # slow to import and seldom needed

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError:
        return False
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        Path(name).replace(path)
    except OSError:
        with suppress(OSError):
            Path(name).unlink()
        return False
    return True


def result_file(kind: str, bundle: Path, facts: dict[str, Any]) -> Path | None:
    """Returns the file with a kind of result for a bundle, valid where these facts hold; None without a folder."""
    folder = cache_folder()
    return folder and folder / kind / f"{_prefix(bundle)}-{digest(json.dumps(facts, sort_keys=True))[:16]}.json"


def result_files(kind: str, bundle: Path) -> list[Path]:
    """Returns the files with a kind of result for a bundle, whatever the facts."""
    folder = cache_folder()
    with suppress(OSError):  # no permission to read the folder
        return [] if folder is None else sorted((folder / kind).glob(f"{_prefix(bundle)}-*.json"))
    return []


def forget(kind: str, bundle: Path) -> int:
    """Deletes these files; returns how many there were."""
    files = result_files(kind, bundle)
    for file in files:
        with suppress(OSError):
            file.unlink()
    return len(files)


def _prefix(bundle: Path) -> str:
    return sha256(bundle / MANIFEST_FILE)[:16]  # the manifest has the SHA-256 of every other file


def _from_environment(variable: str) -> Path | None:
    value = Path(os.environ.get(variable, ""))
    return value if value.is_absolute() else None  # XDG: a relative path is to be ignored
