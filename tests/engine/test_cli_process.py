"""The command line as a process of its own, on the tiny bundle: what users and scripts see."""

import functools
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from engine import Beam, Captioner

ROOT = Path(__file__).parents[2]


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUTF8": "1"}


@pytest.fixture(scope="module")
def photos(drawn_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with three drawings, one of them in a subfolder, and a file that is no image."""
    folder = tmp_path_factory.mktemp("photos")
    for image, name in zip(
        sorted((drawn_data / "images").iterdir())[-3:], ("a.jpg", "b.jpg", "more/c.jpg"), strict=True
    ):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(image.read_bytes())
    (folder / "notes.txt").write_text("no image")
    return folder


def run(photos: Path, bundle: Path, *arguments: str, listed: str = "") -> subprocess.CompletedProcess[str]:
    """Runs `python -m engine` in the folder of photographs."""
    return subprocess.run(
        [sys.executable, "-m", "engine", *arguments, "--bundle", str(bundle)],
        cwd=photos,
        env=environment(),
        input=listed,
        capture_output=True,
        text=True,
        timeout=120,
    )


def sentences(captioner: Captioner, photos: Path, names: list[str], decoding: Any) -> list[str]:
    return [caption.text for caption in captioner.caption([photos / name for name in names], decoding)]


def test_each_image_of_a_folder_is_a_line_of_its_path_and_its_sentence(
    photos: Path, tiny_bundle: Path, tiny_captioner: Captioner
) -> None:
    done = run(photos, tiny_bundle, "caption", ".")
    names = ["a.jpg", "b.jpg", "more/c.jpg"]
    told = sentences(tiny_captioner, photos, names, Beam())
    assert done.stdout.splitlines() == [f"./{name}\t{text}" for name, text in zip(names, told, strict=True)]
    assert (done.returncode, done.stderr) == (0, "1 file was left out: ./notes.txt is not named like an image\n")


def test_a_photograph_comes_through_a_pipe(photos: Path, tiny_bundle: Path, tiny_captioner: Captioner) -> None:
    command = [sys.executable, "-m", "engine", "caption", "/dev/stdin", "--bundle", str(tiny_bundle)]
    photo = (photos / "a.jpg").read_bytes()
    done = subprocess.run(command, env=environment(), input=photo, capture_output=True, timeout=120, check=True)
    assert done.stdout.decode() == f"/dev/stdin\t{sentences(tiny_captioner, photos, ['a.jpg'], Beam())[0]}\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ["caption", "a.jpg", "--colour"],
        ["caption", "a.jpg", "--prefix", "zebra"],
    ],
    ids=" ".join,
)
def test_wrong_usage_ends_with_2_and_no_traceback(photos: Path, tiny_bundle: Path, arguments: list[str]) -> None:
    done = run(photos, tiny_bundle, *arguments)
    assert done.returncode == 2
    assert "error: " in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_an_interrupt_keeps_the_lines_that_were_printed(photos: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    listed = tmp_path / "list.txt"
    listed.write_text("a.jpg\n" * 20_000)
    with (
        listed.open("rb") as names,
        subprocess.Popen(
            [sys.executable, "-m", "engine", "caption", "-", "--bundle", str(tiny_bundle), "--batch-size", "4"],
            cwd=photos,
            env=environment(),
            stdin=names,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL),  # a shell's "&" ignores it
        ) as process,
    ):
        assert process.stdout is not None
        assert process.stderr is not None
        first = [process.stdout.readline() for _ in range(6)]
        process.send_signal(signal.SIGINT)
        lines = [*first, *process.stdout]
        told = process.stderr.read()
    assert process.returncode == 130
    assert len(set(lines)) == 1
    assert re.fullmatch(r"a\.jpg\t\w[\w ]+\n", lines[0])
    done = re.fullmatch(r"interrupted: ([\d,]+) of 20000 images captioned\n", told)
    assert done is not None, told
    assert len(lines) - int(done[1]) in (0, 1)  # the signal may come between a line and its count
    assert len(lines) < 20_000


def test_captioning_loads_neither_torch_nor_onnx(photos: Path, tiny_bundle: Path) -> None:
    code = (
        "import sys; from engine.cli import main; code = main(sys.argv[1:]); "
        "print(code, sorted({'torch', 'onnx', 'timm', 'training', 'export'} & sys.modules.keys()), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "caption", "a.jpg", "--bundle", str(tiny_bundle)],
        cwd=photos,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.stderr == "0 []\n"
    assert done.stdout.startswith("a.jpg\t")
