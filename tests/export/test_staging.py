"""Folders that appear whole or not at all, whatever kills the process that writes them."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from export import staging
from export.staging import staged

ROOT = Path(__file__).parents[2]
REPLACE_FOREVER = """
import sys
from pathlib import Path
from export.staging import staged
for generation in range(1_000_000):
    with staged(Path(sys.argv[1])) as folder:
        (folder / "one").write_text(f"{generation}")
        (folder / "other").write_text(f"{generation}")
    print(generation, flush=True)
"""
DIE_BETWEEN_RENAMES = """
import os, sys
from pathlib import Path
from export import staging
staging._exchange = lambda one, other: False
rename = Path.rename
def die_after(self, target):
    rename(self, target)
    os._exit(9)
Path.rename = die_after
with staging.staged(Path(sys.argv[1])) as folder:
    (folder / "one").write_text("new")
"""


def test_a_kill_leaves_the_old_folder_or_the_new_one_whole(tmp_path: Path) -> None:
    target = tmp_path / "target"
    for delay in (0.0, 0.003, 0.01, 0.031):
        process = subprocess.Popen(
            [sys.executable, "-c", REPLACE_FOREVER, str(target)], cwd=ROOT, stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        with process.stdout:
            process.stdout.readline()
            time.sleep(delay)
            process.send_signal(signal.SIGKILL)
            process.wait()
        assert (target / "one").read_text() == (target / "other").read_text() != ""


def test_without_exchange_a_kill_between_the_renames_leaves_the_old_folder_aside(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.mkdir()
    (target / "one").write_text("old")
    assert subprocess.run([sys.executable, "-c", DIE_BETWEEN_RENAMES, str(target)], cwd=ROOT).returncode == 9
    (aside,) = tmp_path.glob(".target.*.old")
    assert (aside / "one").read_text() == "old"


@pytest.mark.parametrize("exchange", [True, False])
def test_a_replaced_folder_leaves_nothing_beside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exchange: bool
) -> None:
    if not exchange:
        monkeypatch.setattr(staging, "_exchange", lambda *_: False)
    for content in ("old", "new"):
        with staged(tmp_path / "target") as folder:
            (folder / "one").write_text(content)
    assert [path.name for path in tmp_path.iterdir()] == ["target"]
    assert (tmp_path / "target" / "one").read_text() == "new"


def test_a_failing_second_rename_brings_the_old_folder_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "target"
    target.mkdir()
    (target / "one").write_text("old")
    rename = Path.rename

    def fails_for_the_new(self: Path, to: Path) -> Path:
        if self.suffix == ".partial":
            raise PermissionError("on purpose")
        return rename(self, to)

    monkeypatch.setattr(staging, "_exchange", lambda *_: False)
    monkeypatch.setattr(Path, "rename", fails_for_the_new)
    with pytest.raises(PermissionError), staged(target) as folder:
        (folder / "one").write_text("new")
    assert [path.name for path in tmp_path.iterdir()] == ["target"]
    assert (target / "one").read_text() == "old"


def test_leftovers_of_killed_exports_go_after_a_day_and_running_ones_stay(tmp_path: Path) -> None:
    stale, running = tmp_path / ".target.1.partial", tmp_path / ".target.2.partial"
    stale.mkdir()
    running.mkdir()
    os.utime(stale, (0, 0))
    with staged(tmp_path / "target"):
        pass
    assert not stale.exists()
    assert running.exists()


def test_a_link_stays_a_link_to_the_replaced_folder(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    with staged(tmp_path / "link") as folder:
        (folder / "one").touch()
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real" / "one").exists()
