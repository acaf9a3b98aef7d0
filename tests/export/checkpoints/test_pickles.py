"""Pickles are read and never executed: what could run code is one sentence, and nothing of it runs."""

import argparse
import os
import pickle
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from export.checkpoints.layouts import LAYOUTS
from export.checkpoints.modules import read_modules, state_of
from export.checkpoints.pickles import Record, read_pickle
from export.errors import ExportError
from tests.export.checkpoints.cases import CASES
from tests.export.checkpoints.foreign import vocabulary_of, write_pickled_object

COMMON = ["yunjey", "sgrvinod", "sgrvinod before PyTorch 1.6", "ruotianluo fc", "keras-merge"]


class Malice:
    """Makes a file when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return os.mkdir, (str(self.mark),)


def test_the_malice_of_these_tests_works(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(Malice(tmp_path / "mark")))
    assert (tmp_path / "mark").is_dir()


@pytest.mark.parametrize("kind", ["yunjey", "ruotianluo fc", "keras-merge"])
@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_a_malicious_vocabulary_does_nothing(kind: str, protocol: int, tmp_path: Path) -> None:
    mark, case = tmp_path / "mark", CASES[kind](tmp_path)
    case.source.vocabulary.write_bytes(pickle.dumps({"opt": Malice(mark)}, protocol=protocol))
    with pytest.raises(ExportError) as caught:
        LAYOUTS[case.layout](case.source)
    assert not mark.exists()
    assert f"{case.source.vocabulary} asks for posix.mkdir, which does not belong in a " in str(caught.value)
    assert "nothing of it was run" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("kind", ["yunjey", "sgrvinod", "ruotianluo fc"])
def test_a_malicious_checkpoint_does_nothing(kind: str, legacy: bool, tmp_path: Path) -> None:
    mark, case = tmp_path / "mark", CASES[kind](tmp_path)
    content = {"encoder": Malice(mark), "decoder": {"fc.bias": torch.zeros(2)}}
    torch.save(content, case.source.checkpoint, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(ExportError, match="nothing of it was run") as caught:
        LAYOUTS[case.layout](case.source)
    assert not mark.exists()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["yunjey", "ruotianluo fc"])
def test_malicious_weights_of_the_encoder_do_nothing(kind: str, tmp_path: Path) -> None:
    mark, case = tmp_path / "mark", CASES[kind](tmp_path)
    torch.save({"conv1.weight": Malice(mark)}, case.source.encoder_weights or "")
    with pytest.raises(ExportError, match="nothing of it was run"):
        LAYOUTS[case.layout](case.source)
    assert not mark.exists()


@pytest.mark.parametrize(
    "called",
    [(eval, ("1",)), (getattr, (1, "real")), (__import__, ("os",)), (bytearray, (9,)), (pickle.loads, (b"N.",))],
    ids=lambda called: called[0].__name__,
)
def test_no_function_is_called(called: Any, tmp_path: Path) -> None:
    class Calls:
        def __reduce__(self) -> Any:
            return called

    (tmp_path / "a.pkl").write_bytes(pickle.dumps(Calls()))
    with pytest.raises(ExportError, match="could run code"):
        read_pickle(tmp_path / "a.pkl", ("Vocabulary",), "vocabulary")
    torch.save({"encoder": Calls()}, tmp_path / "a.pth")
    with pytest.raises(ExportError, match="could run code"):
        read_modules(tmp_path / "a.pth")


def test_an_object_that_is_made_with_arguments_is_refused(tmp_path: Path) -> None:
    class Calls:
        def __reduce__(self) -> Any:
            return argparse.Namespace, ("x",)

    (tmp_path / "a.pkl").write_bytes(pickle.dumps(Calls()))
    with pytest.raises(ExportError, match=r"asks for argparse\.Namespace"):
        read_pickle(tmp_path / "a.pkl", ("Namespace",), "file of infos")


@pytest.mark.parametrize("protocol", [0, 1, 2, 4])
@pytest.mark.parametrize("module", ["build_vocab", "__main__", "my_project.words"])
def test_an_object_is_read_from_whatever_module_and_protocol(module: str, protocol: int, tmp_path: Path) -> None:
    fields = vocabulary_of(["<pad>", "größe", "dog"])
    write_pickled_object(tmp_path / "vocab.pkl", module, "Vocabulary", fields, protocol)
    read = read_pickle(tmp_path / "vocab.pkl", ("Vocabulary",), "vocabulary")
    assert isinstance(read, Record)
    assert (read.origin, read.fields) == (f"{module}.Vocabulary", fields)


def test_python_2s_pickles_are_read(tmp_path: Path) -> None:
    # what cPickle.dumps({'opt': Namespace(caption_model='fc'), 'vocab': {'1': 'a'}}) of Python 2 writes
    written = (
        b"(dp1\nS'opt'\np2\nccopy_reg\n_reconstructor\np3\n(cargparse\nNamespace\np4\nc__builtin__\nobject\np5\nNtRp6\n"
        b"(dp7\nS'caption_model'\np8\nS'fc'\np9\nsbsS'vocab'\np10\n(dp11\nS'1'\nS'a'\nss."
    )
    (tmp_path / "infos.pkl").write_bytes(written)
    infos = read_pickle(tmp_path / "infos.pkl", ("Namespace",), "file of infos")
    assert infos["opt"].fields == {"caption_model": "fc"}
    assert infos["vocab"] == {"1": "a"}


@pytest.mark.parametrize("content", [b"", b"not a pickle", b"\x80\x04}", b"(dp0\nS'a"])
def test_a_damaged_file_is_one_sentence(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(ExportError, match="is not a vocabulary"):
        read_pickle(tmp_path / "file", ("Vocabulary",), "vocabulary")
    with pytest.raises(ExportError, match="cannot be read as a PyTorch checkpoint"):
        read_modules(tmp_path / "file")


@pytest.mark.parametrize("kind", COMMON)
@pytest.mark.parametrize("which", ["checkpoint", "vocabulary"])
def test_an_absent_file_is_one_sentence(kind: str, which: str, tmp_path: Path) -> None:
    case = CASES[kind](tmp_path)
    source = (
        replace(case.source, checkpoint=tmp_path / "absent.pth")
        if which == "checkpoint"
        else replace(case.source, vocabulary=tmp_path / "absent.json")
    )
    with pytest.raises(ExportError, match=r"absent\.(pth|json).*cannot be read"):
        LAYOUTS[case.layout](source)


@pytest.mark.parametrize("legacy", [False, True])
def test_tensors_of_every_kind_are_read_as_torch_saves_them(legacy: bool, tmp_path: Path) -> None:
    base = torch.arange(24.0).reshape(4, 6)
    state = {
        "view": base[1:, ::2],
        "transposed": base.T,
        "half": base.half(),
        "brain": base.bfloat16(),
        "count": torch.tensor(7),
        "empty": torch.zeros(0, 3),
        "flags": torch.tensor([True, False]),
        "parameter": torch.nn.Parameter(base[:1]),
    }
    torch.save({"decoder": state}, tmp_path / "a.pth", _use_new_zipfile_serialization=not legacy)
    read = state_of(read_modules(tmp_path / "a.pth")["decoder"])
    assert read is not None
    assert read.keys() == state.keys()
    assert all(
        torch.equal(value.detach(), read[name]) and value.dtype == read[name].dtype for name, value in state.items()
    )


def test_a_tensor_outside_its_storage_is_refused(tmp_path: Path) -> None:
    torch.save({"decoder": {"a": torch.zeros(3)}}, tmp_path / "a.pth")
    with zipfile.ZipFile(tmp_path / "a.pth") as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(tmp_path / "b.pth", "w") as archive:
        for name, content in files.items():
            # K\x03\x85 is the shape (3,): make it (99,)
            archive.writestr(
                name, content.replace(b"K\x03\x85", b"K\x63\x85") if name.endswith("data.pkl") else content
            )
    with pytest.raises(ExportError, match="cannot be read as a PyTorch checkpoint"):
        read_modules(tmp_path / "b.pth")


def test_a_module_inside_itself_is_no_endless_walk() -> None:
    module = Record()
    module.fields = {"_modules": {"inner": module}, "_parameters": {"weight": torch.ones(1)}}
    assert state_of(module) is not None
