"""Where indexes are: a file, the user's default file, or a server. Opens them; knows no tables."""

import os
import sys
from pathlib import Path

from engine.errors import StoreError
from engine.search.address import SERVERS
from engine.search.store import BundleKey, Store

NAME = "captioning-engine"
FILE = "photos.db"


def default_index() -> Path:
    """Returns the index in the user's data folder.

    That is captioning-engine in XDG_DATA_HOME, else in the system's usual folder for data (~/.local/share;
    ~/Library/Application Support on macOS; %LOCALAPPDATA% on Windows). Raises StoreError for a user without a home.
    """
    chosen = Path(os.environ.get("LOCALAPPDATA" if sys.platform == "win32" else "XDG_DATA_HOME", ""))
    if chosen.is_absolute():
        return chosen / NAME / FILE
    try:
        home = Path.home()
    except RuntimeError as error:  # a user without a passwd entry, as in some containers
        raise StoreError("this user has no home folder for an index: name a file for it") from error
    return home / ("Library/Application Support" if sys.platform == "darwin" else ".local/share") / NAME / FILE


def open_store(place: str, bundle: BundleKey, *, create: bool) -> Store:
    """Opens an index, a file or a server's address. create: makes it if there is none. Raises StoreError."""
    if place.startswith(SERVERS):
        try:
            from engine.search.postgres.store import PostgresStore
        except ImportError as error:  # psycopg, or the library of PostgreSQL that it loads
            why = f"an index on a PostgreSQL server needs psycopg, which cannot be imported ({error})"
            raise StoreError(f"{why}: run python -m pip install '.[postgres]' in a checkout") from error
        return PostgresStore(place, bundle, create=create)
    from engine.search.sqlite import SQLiteStore

    return SQLiteStore(Path(place), bundle, create=create)
