"""Folders that appear whole or not at all, whatever stops the process that writes them."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

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


def write(target: Path, content: str) -> None:
    with staged(target) as folder:
        (folder / "one").write_text(content)


def test_a_kill_leaves_the_old_folder_or_the_new_one_whole(tmp_path: Path) -> None:
    target = tmp_path / "target"
    process = subprocess.Popen(
        [sys.executable, "-c", REPLACE_FOREVER, str(target)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    with process.stdout:
        process.stdout.readline()
        process.send_signal(signal.SIGKILL)
        process.wait()
    left = target if target.exists() else next(tmp_path.glob(".target.*.old"))  # killed between two renames
    assert (left / "one").read_text() == (left / "other").read_text() != ""


def test_a_failing_second_rename_brings_the_old_folder_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target, rename = tmp_path / "target", Path.rename
    write(target, "old")

    def fails_for_the_new(self: Path, to: Path) -> Path:
        if self.suffix == ".partial":
            raise PermissionError("on purpose")
        return rename(self, to)

    monkeypatch.setattr(Path, "rename", fails_for_the_new)
    with pytest.raises(PermissionError):
        write(target, "new")
    assert [path.name for path in tmp_path.iterdir()] == ["target"]
    assert (target / "one").read_text() == "old"


def test_leftovers_of_killed_exports_go_after_a_day_and_running_ones_stay(tmp_path: Path) -> None:
    stale, running = tmp_path / ".target.1.partial", tmp_path / ".target.2.partial"
    stale.mkdir()
    running.mkdir()
    os.utime(stale, (0, 0))
    write(tmp_path / "target", "new")
    assert not stale.exists()
    assert running.exists()


def test_a_link_stays_a_link_to_the_replaced_folder(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    write(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real" / "one").exists()
