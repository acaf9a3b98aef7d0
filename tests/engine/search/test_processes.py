"""Processes that write an index at once, or are killed while they do, leave it whole."""

import os
import random
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from engine.search.place import open_store
from engine.search.store import Store
from engine.search.table import as_direction
from tests.engine.search.indexer import KEY, features_of, index, text_of

ROOT = Path(__file__).parents[3]
FILES = 240


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Files of which every fifth is a copy of the one before."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(FILES):
        content = number - (number % 5 == 4)
        (folder / f"{number:03}.jpg").write_bytes(bytes([1 + content % 200, 1 + content // 200, 5, 9]))
    return folder


def started(place: str, folder: Path) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "tests.engine.search.indexer", place, str(folder)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=os.environ | {"PYTHONPATH": ""})


def assert_whole(store: Store, folder: Path) -> int:
    """Every file that is in the index has the caption, features and vector of its bytes; returns how many there are."""
    files = [os.fsencode(path) for path in sorted(folder.iterdir())]
    known = store.known(files)
    assert all(each.current and not each.missing for each in known.values())
    changes = store.changes(0)
    vectors = dict(zip(changes.ids.tolist(), changes.vectors, strict=True))
    paths = {path: store.id_of(path) for path in known}
    ids = sorted({id_ for id_ in paths.values() if id_ is not None})
    assert sorted(changes.ids[changes.living].tolist()) == ids
    assert store.counts().photos == len(ids)
    of_photo: dict[int, set[bytes]] = {}
    for path, id_ in paths.items():
        assert id_ is not None
        of_photo.setdefault(id_, set()).add(path)
    words = store.folded(ids)
    for photo, features in zip(store.photos(ids), store.features(ids), strict=True):
        assert {os.fsencode(path) for path in photo.paths} == of_photo[photo.id]
        for name in photo.paths:
            np.testing.assert_array_equal(features, features_of(Path(name).read_bytes()))
        assert photo.text == text_of(features)
        assert set(words[photo.id].split()) == set(photo.text.split())
        np.testing.assert_array_equal(vectors[photo.id], as_direction(features[None])[0])
    return len(known)


def finished(place: str, folder: Path) -> None:
    """Holds an index against its folder."""
    store = open_store(place, KEY, create=False)
    try:
        assert assert_whole(store, folder) == FILES
        assert store.counts().photos == len({path.read_bytes() for path in folder.iterdir()})
    finally:
        store.close()


def test_what_was_written_by_a_process_that_is_killed_is_whole_and_the_next_goes_on(place: str, folder: Path) -> None:
    rng, written = random.Random(0), 0
    for _ in range(3):
        process = started(place, folder)
        assert process.stdout is not None
        for line in process.stdout:
            if int(line):
                break
        time.sleep(rng.random() * 0.05)
        process.kill()
        process.wait()
        process.stdout.close()
        if not place.startswith("postgresql:"):
            with sqlite3.connect(place) as connection:
                assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
            connection.close()
        store = open_store(place, KEY, create=False)
        now = assert_whole(store, folder)
        store.close()
        assert now > written, "each run begins where the one before was killed"
        written = now
    assert written < FILES, "a process was killed while it wrote"
    added = index(place, [str(folder)])
    assert added.unchanged == written
    finished(place, folder)


def test_two_processes_that_index_the_same_folder_leave_each_photograph_once(place: str, folder: Path) -> None:
    processes = [started(place, folder) for _ in range(2)]
    for process in processes:
        _, _ = process.communicate()
        assert process.returncode == 0
    finished(place, folder)
    assert index(place, [str(folder)]).unchanged == FILES
