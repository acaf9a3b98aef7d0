"""Laws of sentence files: all usable lines are read, plain or gzipped, every other is named."""

import gzip
import json
from pathlib import Path

import pytest

from training.data.examples import DataError
from training.data.sentences import read_sentences

LINES = [
    '{"image": "1.jpg", "captions": ["A dog runs.", " a brown dog "], "more": 1}',
    '{"image": "2.jpg", "captions": ["a cat\\u2028sleeps"]}',
]


def write(path: Path, lines: list[str], encoding: str = "utf-8") -> Path:
    path.write_bytes("\n".join(lines).encode(encoding))
    return path


def test_plain_and_gzipped_files_are_the_same(tmp_path: Path) -> None:
    plain = write(tmp_path / "plain", LINES)
    zipped = tmp_path / "zipped.txt"  # what it is shows in its first bytes, not in its name
    zipped.write_bytes(gzip.compress(plain.read_bytes()))
    windows = write(tmp_path / "windows", ["\ufeff" + LINES[0] + "\r", "", LINES[1] + "\r", ""])
    found = [read_sentences(path) for path in (plain, zipped, windows)]
    assert found[0][0] == found[1][0] == found[2][0]
    assert [example.name for example in found[0][0]] == ["1.jpg", "2.jpg"]
    assert found[0][0][0].captions == ("A dog runs.", "a brown dog")
    assert str(found[0][1]) == f"{plain}: 2 images, 3 captions, 0 faults"


def test_captions_of_one_photograph_on_two_lines_are_together(tmp_path: Path) -> None:
    examples, _ = read_sentences(write(tmp_path / "a", [LINES[0], LINES[1], LINES[0]]))
    assert [len(example.captions) for example in examples] == [4, 1]


@pytest.mark.parametrize(
    "line",
    [
        "{",
        "null",
        "[1]",
        '"text"',
        '{"image": 1, "captions": ["a dog"]}',
        '{"image": "1.jpg"}',
        '{"image": "1.jpg", "captions": "a dog"}',
        '{"image": "1.jpg", "captions": ["a dog", 2]}',
        '{"image": "\\ud800.jpg", "captions": ["a dog"]}',  # half a character
        '{"image": "1.jpg", "captions": ["a dog \\udfff"]}',
        "[" * 100_000,
        '{"image": "1.jpg", "captions": [' + "1" * 5000 + "]}",
    ],
)
def test_a_broken_line_is_named_and_the_rest_is_read(tmp_path: Path, line: str) -> None:
    path = write(tmp_path / "a", [LINES[0], line, LINES[1]])
    examples, report = read_sentences(path)
    assert len(examples) == 2
    assert report.counts() == {"broken lines": 1}
    assert "line 2: " in str(report)
    with pytest.raises(DataError, match="broken lines: 1"):
        read_sentences(path, strict=True)


def test_photographs_without_words_are_named(tmp_path: Path) -> None:
    lines = [
        json.dumps({"image": f"{i}.jpg", "captions": texts}) for i, texts in enumerate([[], ["", " ."], ["a", ""]])
    ]
    examples, report = read_sentences(write(tmp_path / "a", lines))
    assert [(example.name, example.captions) for example in examples] == [("2.jpg", ("a",))]
    assert list(report.faults["photographs without sentences"]) == ["line 1 (0.jpg)", "line 2 (1.jpg)"]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "has no line like"),
        (b"\n \n", "has no line like"),
        (b"hello\n", "has no line like"),
        (b'{"image": "1.jpg", "captions": []}', "has no line like"),
        ("\n".join(LINES).encode("utf-16"), "cannot be read as sentences"),
        (gzip.compress("\n".join(LINES).encode())[:-9], "cannot be read as sentences"),
        (b"\x1f\x8bnonsense", "cannot be read as sentences"),
        (gzip.compress(b"")[:10] + b"\xff" * 20, "cannot be read as sentences"),
    ],
)
def test_a_file_without_sentences_is_one_error_that_names_it(tmp_path: Path, content: bytes, sentence: str) -> None:
    path = tmp_path / "a"
    path.write_bytes(content)
    with pytest.raises(DataError, match=sentence) as error:
        read_sentences(path)
    assert str(path) in str(error.value)


def test_a_file_that_is_not_there_or_a_folder_is_named(tmp_path: Path) -> None:
    for path in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(DataError, match="cannot be read as sentences") as error:
            read_sentences(path)
        assert str(path) in str(error.value)
