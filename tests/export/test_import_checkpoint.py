"""The command that imports captioners of other projects, up to the export."""

import re
from argparse import Namespace
from pathlib import Path

import pytest

from export import import_checkpoint
from export.checkpoints.imported import Imported
from export.checkpoints.layouts import LAYOUTS
from tests.export.checkpoints.cases import sgrvinod


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Imported, Namespace]]:
    """What the command would have exported."""
    calls: list[tuple[Imported, Namespace]] = []
    monkeypatch.setattr(import_checkpoint, "write", lambda read, given: calls.append((read, given)))
    return calls


def _files(folder: Path) -> list[str]:
    source = sgrvinod(folder).source
    files = ["--checkpoint", str(source.checkpoint), "--vocabulary", str(source.vocabulary)]
    return ["--from", "sgrvinod", *files, "--output", str(folder / "bundle")]


def test_the_files_are_read_and_given_to_the_export(
    tmp_path: Path, written: list[tuple[Imported, Namespace]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert import_checkpoint.main([*_files(tmp_path), "--size", "64x96", "--precision", "fp32,fp16"]) == 0
    read, given = written[0]
    assert (read.image.height, read.image.width) == (64, 96)
    assert given.precision == "fp32,fp16"
    assert "read sgrvinod's image captioning tutorial, soft attention" in capsys.readouterr().out


def test_a_file_that_does_not_fit_is_one_line_and_exit_code_1(
    tmp_path: Path, written: list[tuple[Imported, Namespace]], capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = _files(tmp_path)
    (tmp_path / "WORDMAP.json").write_text("[]")
    assert import_checkpoint.main(arguments) == 1
    assert written == []
    assert capsys.readouterr().err.splitlines() == [
        f"error: {tmp_path / 'WORDMAP.json'} is not a word map: it must be a JSON object of words and their ids"
    ]


def test_the_commands_of_the_page_are_understood(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("h5py", reason="the extra keras is not installed")
    page = (Path(__file__).parents[2] / "docs" / "import.md").read_text(encoding="utf-8")
    commands = [line.split() for line in re.findall(r"`python -m export\.import_checkpoint (.*?)`", page)]
    assert sorted(command[1] for command in commands) == sorted(LAYOUTS)
    assert {import_checkpoint.main(command) for command in commands} == {1}  # the files are not here
    assert capsys.readouterr().err.count("cannot be read") == len(commands)


@pytest.mark.parametrize("size", ["224", "0x3", "axb"])
def test_a_size_is_two_numbers(size: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        import_checkpoint.main(
            ["--from", "yunjey", "--checkpoint", "a", "--vocabulary", "b", "--output", "c", "--size", size]
        )
    assert "give height and width in pixels, such as 480x640" in capsys.readouterr().err
