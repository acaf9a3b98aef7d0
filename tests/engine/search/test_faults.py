"""An index that cannot be opened, read or written says so in one sentence."""

import os
import sqlite3
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from engine import PhotoIndex, StoreError
from engine.search.photo import File
from engine.search.place import default_index
from engine.search.sqlite import SQLiteStore
from tests.engine.search.conftest import Open


def refusal(index: PhotoIndex) -> str:
    with pytest.raises(StoreError) as caught:
        index.search("a dog")
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_no_index_says_how_to_make_one(opened: Open, tmp_path: Path) -> None:
    file = tmp_path / "photos.db"
    assert refusal(opened()) == f"there is no index {file}: `python -m engine index PHOTOS --index {file}` makes one"
    assert not file.exists()


@pytest.mark.parametrize("content", [b"no database at all, but a text that is long", b"\x00" * 8192])
def test_another_file_is_left_alone(opened: Open, photos: Path, tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "photos.db"
    file.write_bytes(content)
    assert refusal(opened()) == f"{file}: it is no index of photographs: name another file"
    with pytest.raises(StoreError, match="no index of photographs"):
        opened().add([photos])
    assert file.read_bytes() == content


def test_a_database_of_another_program_is_left_alone(opened: Open, photos: Path, tmp_path: Path) -> None:
    file = tmp_path / "photos.db"
    with sqlite3.connect(file) as connection:
        connection.execute("CREATE TABLE theirs (a)")
    connection.close()
    before = file.read_bytes()
    for way in (lambda: opened().search("a dog"), lambda: opened().add([photos])):
        with pytest.raises(StoreError, match="is no index of photographs: name another file"):
            way()
    assert file.read_bytes() == before
    assert [path.name for path in tmp_path.glob("photos.db*")] == ["photos.db"]


def test_an_index_of_another_version_says_what_to_do(opened: Open, photos: Path, tmp_path: Path) -> None:
    opened().add([photos])
    with sqlite3.connect(tmp_path / "photos.db") as connection:
        connection.execute("PRAGMA user_version = 7")
    connection.close()
    said = refusal(opened())
    assert (
        "is an index of version 7, and this engine reads version 1: delete it and index the photographs again" in said
    )


def test_a_damaged_index_says_so(opened: Open, photos: Path, tmp_path: Path) -> None:
    index = opened()
    index.add([photos])
    index.close()
    file = tmp_path / "photos.db"
    content = bytearray(file.read_bytes())
    content[32768:] = os.urandom(len(content) - 32768)  # all pages but the first
    file.write_bytes(content)
    assert "it is damaged: delete it and index the photographs again" in refusal(opened())


def test_a_folder_that_is_no_place_for_a_file_says_so(opened: Open, photos: Path, tmp_path: Path) -> None:
    (tmp_path / "a file").write_text("")
    index = opened(path=tmp_path / "a file" / "photos.db")
    with pytest.raises(StoreError, match=r"photos\.db.*cannot be made"):
        index.add([photos])


def test_a_disk_without_room_says_so_and_keeps_what_was_there(opened: Open, photos: Path, tmp_path: Path) -> None:
    index = opened()
    index.add([photos])
    store = index._opened()
    assert isinstance(store, SQLiteStore)
    (pages,) = store._connection.execute("PRAGMA page_count").fetchone()
    store._connection.execute(f"PRAGMA max_page_count = {pages}")
    many = [File(b"/broken/%d" % i, 1, 1, b"", "is broken" * 50) for i in range(2000)]
    with pytest.raises(StoreError, match=r"the disk is full: make room and run the same command again"):
        store.write((), many)
    assert index.counts().files == 6
    assert len(index.search("circle square triangle red green blue on a", 100)) > 0
    with sqlite3.connect(tmp_path / "photos.db") as check:
        assert check.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    check.close()


READ_ONLY = """
import os, sys
import numpy as np
from engine import Captioner, PhotoIndex, StoreError
from engine.search import sqlite
bundle, place, photos = sys.argv[1:]
captioner = Captioner(bundle, provider="cpu")
captioner.score([np.zeros((8, 8, 3), np.uint8)], ["circle"])  # opens files that may not be read any more below
index = PhotoIndex(place, captioner)
if os.getuid() == 0:  # who may write everywhere
    os.setuid(65534)
print(len(index.search("circle square triangle red green blue on a", 100)))
try:
    index.add([photos])
except StoreError as error:
    print(error)
"""


def test_a_read_only_index_can_be_searched_and_not_written(opened: Open, photos: Path, tiny_bundle: Path) -> None:
    with tempfile.TemporaryDirectory() as name:  # that another user can enter
        folder = Path(name)
        with opened(path=folder / "photos.db") as index:
            index.add([photos])
            expected = len(index.search("circle square triangle red green blue on a", 100))
        (folder / "photos.db").chmod(0o444)
        folder.chmod(0o555)
        arguments = [sys.executable, "-c", READ_ONLY, str(tiny_bundle), str(folder / "photos.db"), str(photos)]
        done = subprocess.run(arguments, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[3])
        folder.chmod(0o755)
    assert done.returncode == 0, done.stderr
    found, said = done.stdout.splitlines()
    assert int(found) == expected > 0
    assert said == f"{folder / 'photos.db'}: it may not be written: change its permissions, or name another file"


def test_the_default_index_is_in_the_users_data_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert default_index() == tmp_path / "captioning-engine" / "photos.db"
    monkeypatch.setenv("XDG_DATA_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_index() == tmp_path / ".local" / "share" / "captioning-engine" / "photos.db"


def test_an_index_that_is_open_only_to_be_searched_is_made_by_nobody(opened: Open, photos: Path) -> None:
    opened().add([photos / "0.jpg"])
    index = opened()
    assert index.counts().photos == 1
    assert index.add([photos]).captioned == 5
    assert index.counts().photos == 6


def test_a_search_that_has_begun_goes_on_when_the_index_is_first_written(opened: Open, photos: Path) -> None:
    opened().add([photos / "0.jpg"])
    index = opened()
    searching = index._opened()
    index.add([photos])
    assert searching.counts() == index.counts()
    index.close()
    with pytest.raises(StoreError):
        searching.counts()
