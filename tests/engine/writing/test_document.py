"""Laws of files that are amended: every encoding comes back, and a file is replaced at once or not at all."""

import os
import re
import stat
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import DocumentError
from engine.writing.document import Document, Edit, read_file, replace_file


@settings(deadline=None, derandomize=True)
@given(st.binary(max_size=60))
def test_bytes_come_back_whatever_they_are(data: bytes) -> None:
    try:
        document = Document.of(data, ("utf-8", "latin-1"))
    except DocumentError:
        assert data[:2] in (b"\xff\xfe", b"\xfe\xff") or data[:4] == b"\0\0\xfe\xff"  # a mark, and no such text
    else:
        assert document.edited(()) == data


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32", "latin-1", "shift_jis"])
def test_edits_change_their_places_only_in_every_encoding(encoding: str) -> None:
    text = "one two three" if encoding != "shift_jis" else "one two 写真"
    document = Document.of(text.encode(encoding), [encoding])
    edited = document.edited([Edit(8, 8, "new "), Edit(0, 3, "1")])
    assert edited == f"1 two new {text[8:]}".encode(encoding)


def test_what_an_encoding_does_not_have_is_written_as_a_reference() -> None:
    assert Document("a\xe9", "latin-1").edited([Edit(2, 2, "写")]) == b"a\xe9&#20889;"


def test_a_file_keeps_its_permissions_and_a_link_stays_one(tmp_path: Path) -> None:
    file, link = tmp_path / "a.xmp", tmp_path / "link.xmp"
    file.write_bytes(b"before")
    file.chmod(0o640)
    link.symlink_to(file)
    replace_file(link, b"after")
    assert link.is_symlink()
    assert (file.read_bytes(), stat.S_IMODE(file.stat().st_mode)) == (b"after", 0o640)
    replace_file(tmp_path / "new.xmp", b"new")
    other = tmp_path / "other"
    other.touch()
    assert (tmp_path / "new.xmp").stat().st_mode == other.stat().st_mode  # as the user has new files
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.xmp", "link.xmp", "new.xmp", "other"]


def test_a_write_that_fails_leaves_the_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (file := tmp_path / "a.xmp").write_bytes(b"before")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DocumentError, match=re.escape("cannot be written: No space left on device")):
        replace_file(file, b"after")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("a.xmp", b"before")]


def test_a_protected_file_is_not_replaced(tmp_path: Path) -> None:
    (file := tmp_path / "a.xmp").write_bytes(b"before")
    file.chmod(0o444)
    with pytest.raises(DocumentError, match="is read-only: allow writing to it"):
        replace_file(file, b"after")
    assert file.read_bytes() == b"before"


def test_only_regular_files_are_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for name, why in (("pipe", "is no regular file"), (".", "is no regular file"), ("none", "No such file")):
        with pytest.raises(DocumentError, match=why):
            read_file(tmp_path / name)
