"""The cache folder: where the environment says, or where the system keeps caches; files whole or not at all."""

import sys
from pathlib import Path

import pytest

from engine.cache import cache_folder, store


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for variable in ("CAPTIONING_ENGINE_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


def test_the_variable_wins_over_xdg_and_xdg_over_the_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    assert cache_folder() == tmp_path / "home/.cache/captioning-engine"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg/captioning-engine"
    monkeypatch.setenv("CAPTIONING_ENGINE_CACHE", str(tmp_path / "own"))
    assert cache_folder() == tmp_path / "own"


def test_the_variable_may_name_the_home_or_a_relative_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CAPTIONING_ENGINE_CACHE", "~/own")
    assert cache_folder() == tmp_path / "home/own"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CAPTIONING_ENGINE_CACHE", "own")
    assert cache_folder() == tmp_path / "own"


def test_a_relative_xdg_folder_is_ignored_as_its_standard_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", "somewhere")
    assert cache_folder() == tmp_path / "home/.cache/captioning-engine"


def test_a_user_without_a_home_has_no_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    def lost() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", lost)
    assert cache_folder() is None


def test_asking_for_the_folder_makes_none() -> None:
    folder = cache_folder()
    assert folder is not None
    assert not folder.exists()


def test_a_stored_file_is_whole_replaces_the_one_before_and_leaves_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "deep/er/tuning.json"
    assert store(path, b"one")
    assert store(path, b"two")
    assert path.read_bytes() == b"two"
    assert [file.name for file in path.parent.iterdir()] == ["tuning.json"]


def test_a_cache_that_cannot_be_written_is_no_error_and_keeps_what_was_there(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_bytes(b"")
    assert not store(tmp_path / "file/below/it", b"data")
    assert store(tmp_path / "kept", b"old")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    assert not store(tmp_path / "kept", b"new")
    assert (tmp_path / "kept").read_bytes() == b"old"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["file", "kept"]
