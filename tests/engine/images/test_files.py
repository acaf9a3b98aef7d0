"""Paths that are no regular files are read to their end within a time, or refused in one sentence; nothing hangs."""

import contextlib
import os
import select
import socket
import sys
import threading
import time
import tracemalloc
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from engine.errors import ImageError
from engine.images import files
from engine.images.load import load_pixels
from tests.engine.images.pictures import encoded, photograph

PHOTO = encoded(photograph(300, 200), "PNG")
pytestmark = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")


def reason(path: Path | str) -> str:
    began = time.monotonic()
    with pytest.raises(ImageError) as caught:
        load_pixels(path, height=8, width=8)
    assert time.monotonic() - began < 20
    return caught.value.reason


@pytest.fixture
def pipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A named pipe into which nobody writes yet; it is waited for a tenth of a second."""
    monkeypatch.setattr(files, "PIPE_SECONDS", 0.1)
    os.mkfifo(tmp_path / "x.jpg")
    return tmp_path / "x.jpg"


@pytest.fixture
def patient(pipe: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A named pipe that is waited for as long as a test takes."""
    monkeypatch.setattr(files, "PIPE_SECONDS", 30)
    return pipe


def test_a_pipe_that_nobody_writes_into_is_refused(pipe: Path) -> None:
    assert reason(pipe) == "is a pipe that was not closed within 0.1 s: write its content to a file"


def test_a_pipe_that_is_never_closed_is_refused(pipe: Path) -> None:
    with pipe.open("r+b", buffering=0) as writer:
        writer.write(PHOTO[:1000])
        assert "was not closed within 0.1 s" in reason(pipe)


def test_a_pipe_is_read_to_its_end(patient: Path) -> None:

    def write() -> None:
        with patient.open("wb", buffering=0) as writer:
            for start in range(0, len(PHOTO), 1000):
                writer.write(PHOTO[start : start + 1000])
                time.sleep(0.001)

    writing = threading.Thread(target=write)
    writing.start()
    pixels = load_pixels(patient, height=8, width=8)
    writing.join()
    np.testing.assert_array_equal(pixels, load_pixels(PHOTO, height=8, width=8))


def test_a_pipe_without_end_is_refused_at_a_bound(patient: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "PIPE_BYTES", 100_000)

    def write() -> None:
        with patient.open("wb", buffering=0) as writer, contextlib.suppress(BrokenPipeError):
            while True:
                writer.write(bytes(65536))

    writing = threading.Thread(target=write)
    writing.start()
    assert reason(patient) == "is a pipe with more than 100,000 bytes: write its content to a file"
    writing.join(10)
    assert not writing.is_alive()


def test_a_pipe_is_held_once(patient: Path) -> None:
    content = bytes(40_000_000)
    writing = threading.Thread(target=patient.write_bytes, args=(content,))
    writing.start()
    tracemalloc.start()
    try:
        with files.open_path(patient) as file:
            assert file.read() == content
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
        writing.join()
    assert most < 1.5 * len(content)  # with room to grow


@pytest.mark.parametrize(("module", "name"), [(select, "poll"), (os, "O_NONBLOCK")])
def test_a_pipe_is_refused_in_a_sentence_where_none_can_be_waited_for(
    module: ModuleType, name: str, pipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(module, name)
    assert reason(pipe) == "is a pipe, which cannot be read on this system: write its content to a file"


def test_no_descriptor_stays_open(pipe: Path) -> None:
    reason(pipe)
    before = os.dup(0)
    for _ in range(3):
        reason(pipe)
    after = os.dup(0)
    os.close(before)
    os.close(after)
    assert after == before + 1


@pytest.mark.parametrize("device", ["/dev/zero", "/dev/null", "/dev/tty"])
def test_a_device_is_refused(device: str) -> None:
    if not Path(device).exists():
        pytest.skip(f"there is no {device}")
    assert reason(device) == "is a device, not an image file"


@pytest.mark.skipif(sys.platform == "win32", reason="sockets have no paths")
def test_a_socket_is_refused(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        assert reason(tmp_path / "s") == "is a socket, not an image file"


def test_a_link_is_what_it_leads_to(pipe: Path, tmp_path: Path) -> None:
    (tmp_path / "photo.png").write_bytes(PHOTO)
    (tmp_path / "link.png").symlink_to("photo.png")
    (tmp_path / "pipe.png").symlink_to(pipe)
    (tmp_path / "lost.png").symlink_to("nowhere.png")
    load_pixels(tmp_path / "link.png", height=8, width=8)
    assert "is a pipe" in reason(tmp_path / "pipe.png")
    assert reason(tmp_path / "lost.png") == "there is no such file"
