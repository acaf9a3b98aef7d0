"""A file of a bundle that is damaged, missing or leads elsewhere is named, whichever it is."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engine.bundle.bundle import GRAPHS, MANIFEST_FILE, VOCABULARY_FILE
from engine.bundle.manifest import FORMAT_VERSION
from tests.engine.bundle.broken import edit, fault, graph, words

FILES = [*(f"{name}.onnx" for name in GRAPHS), "decoder.weights"]


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe\x00", b'{"format_version": 1,}', b"not json"])
def test_a_manifest_that_is_no_json_is_named(folder: Path, content: bytes) -> None:
    (folder / MANIFEST_FILE).write_bytes(content)
    assert "manifest.json cannot be read" in fault(folder)


@pytest.mark.parametrize("version", [None, 0, FORMAT_VERSION - 1, FORMAT_VERSION + 1, "1", [], 1.5])
def test_another_format_version_is_named_beside_the_one_that_can_be_read(folder: Path, version: object) -> None:
    edit(folder, lambda data: data.update(format_version=version))
    message = fault(folder)
    assert f"format version is {version!r}" in message
    assert f"reads {FORMAT_VERSION}" in message
    assert "export it again" in message


@pytest.mark.parametrize("content", [[], "text", 7, None, [{"format_version": FORMAT_VERSION}]])
def test_a_manifest_that_is_no_object_has_no_format_version(folder: Path, content: object) -> None:
    (folder / MANIFEST_FILE).write_text(json.dumps(content))
    assert "format version is None" in fault(folder)


def flip(content: bytes, place: int) -> bytes:
    """Changes one bit."""
    changed = bytearray(content)
    changed[place] ^= 1
    return bytes(changed)


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "first bit": lambda content: flip(content, 0),
    "a bit in the middle": lambda content: flip(content, len(content) // 2),
    "last bit": lambda content: flip(content, -1),
    "cut by a byte": lambda content: content[:-1],
    "half": lambda content: content[: len(content) // 2],
    "empty": lambda content: b"",
    "a byte too many": lambda content: content + b"\0",
    "something else": lambda content: b"PK\x03\x04",
}


@pytest.mark.parametrize(
    ("name", "damage"), [*((FILES[0], damage) for damage in DAMAGES), *((name, "half") for name in FILES)]
)
def test_a_damaged_file_is_named(folder: Path, name: str, damage: str) -> None:
    path = folder / name
    path.write_bytes(DAMAGES[damage](path.read_bytes()))
    message = fault(folder)
    assert f"{name} is corrupt" in message
    assert all(f"{other} is corrupt" not in message for other in FILES if other != name)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("in_its_place", ["nothing", "a folder"])
def test_a_missing_file_is_named(folder: Path, name: str, in_its_place: str) -> None:
    (folder / name).unlink()
    if in_its_place == "a folder":
        (folder / name).mkdir()
    assert f"{name} is missing" in fault(folder)


@pytest.mark.parametrize("name", ["../secret.onnx", "sub/encoder.onnx", "/etc/passwd", "", ".", ".."])
@pytest.mark.parametrize("where", ["graph", "data"])
def test_a_name_that_leads_out_of_the_bundle_is_refused_even_if_its_digest_fits(
    folder: Path, name: str, where: str
) -> None:
    (folder / "sub").mkdir()
    for copy in ("../secret.onnx", "sub/encoder.onnx"):
        shutil.copy(folder / "encoder.onnx", folder / copy)

    def lead_out(data: dict[str, Any]) -> None:
        encoder = graph(data, "encoder")
        if where == "graph":
            encoder["file"] = name
        else:
            data["data_sha256"][name] = encoder["sha256"]
            encoder["data"] = [name]

    edit(folder, lead_out)
    message = fault(folder)
    assert f"{name!r} is not a plain file name" in message or f"{name} is missing" in message


# --- the vocabulary


@pytest.mark.parametrize("content", [b"", b"[", b"{}", b'"words"', b"[1, 2]", b"\xff"])
def test_a_vocabulary_that_is_no_list_of_words_is_named(folder: Path, content: bytes) -> None:
    (folder / VOCABULARY_FILE).write_bytes(content)
    assert "vocabulary.json cannot be read" in fault(folder)


def test_a_vocabulary_with_a_word_twice_or_without_a_special_word_is_named(folder: Path) -> None:
    words(folder, lambda found: found.append(found[-1]))
    assert "occur twice" in fault(folder)
    words(folder, lambda found: found.__setitem__(slice(None), [word for word in set(found) if word != "#UNK#"]))
    assert "#UNK#" in fault(folder)


def test_a_vocabulary_with_two_words_exchanged_is_named(folder: Path) -> None:
    words(folder, lambda found: found.__setitem__(slice(5, 7), found[6:4:-1]))
    assert "vocabulary.json is corrupt" in fault(folder)


def test_an_unreadable_vocabulary_does_not_hide_a_damaged_file(folder: Path) -> None:
    (folder / VOCABULARY_FILE).unlink()
    (folder / "encoder.onnx").write_bytes(b"")
    message = fault(folder)
    assert "vocabulary.json cannot be read" in message
    assert "encoder.onnx is corrupt" in message
