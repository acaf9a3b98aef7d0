"""Modules and objects of other projects, made so that pickles name classes that exist nowhere afterwards."""

import pickle
import sys
import types
import warnings
from collections import OrderedDict, defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn


@contextmanager
def module_named(name: str, **classes: type) -> Iterator[types.ModuleType]:
    """Puts classes into a module of this name, for as long as something is pickled."""
    module = types.ModuleType(name)
    for title, kind in classes.items():
        kind.__module__, kind.__qualname__, kind.__name__ = name, title, title
        setattr(module, title, kind)
    packages = name.split(".")[:-1]  # pickle imports these too
    named = {".".join(packages[: i + 1]): types.ModuleType(package) for i, package in enumerate(packages)}
    with pytest.MonkeyPatch.context() as patch:
        for full, made in {**named, name: module}.items():
            patch.setitem(sys.modules, full, made)
        yield module


def write_pickled_object(path: Path, module: str, name: str, fields: Mapping[str, Any], protocol: int = 3) -> None:
    """Pickles an object of a class that exists only meanwhile."""
    kind = type(name, (), {})
    with module_named(module, **{name: kind}):
        value = kind()
        value.__dict__.update(fields)
        path.write_bytes(pickle.dumps(value, protocol=protocol))


def grown(state: Mapping[str, Tensor], kinds: Mapping[str, type[nn.Module]], name: str) -> nn.Module:
    """A module of foreign classes with exactly these tensors: parts by the dots in their names."""
    root = kinds[name]()
    for full, tensor in state.items():
        *parts, last = full.split(".")
        here = root
        for part in parts:
            if part not in here._modules:
                here.add_module(part, kinds["Part"]())
            here = here.get_submodule(part)
        if tensor.is_floating_point() and not last.startswith("running_"):
            here.register_parameter(last, nn.Parameter(tensor.clone()))
        else:
            here.register_buffer(last, tensor.clone())
    return root


def write_whole_modules(
    path: Path, encoder: Mapping[str, Tensor], decoder: Mapping[str, Tensor], *, legacy: bool, parallel: bool = False
) -> None:
    """Saves what sgrvinod's tutorial saves: a dict with two whole modules and their optimizers."""
    classes = {title: type(title, (nn.Module,), {}) for title in ("Encoder", "DecoderWithAttention", "Part")}
    with module_named("models", **classes):
        modules = {
            "encoder": grown(encoder, classes, "Encoder"),
            "decoder": grown(decoder, classes, "DecoderWithAttention"),
        }
        content: dict[str, Any] = {
            name: nn.DataParallel(module) if parallel else module for name, module in modules.items()
        }
        optimizer = torch.optim.Adam(content["decoder"].parameters(), lr=0.0)
        loss = torch.stack([parameter.sum() for parameter in content["decoder"].parameters()]).sum()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        for module in modules.values():
            module.zero_grad()
        content |= {"epoch": 3, "epochs_since_improvement": 0, "bleu-4": 0.2, "encoder_optimizer": None}
        content["decoder_optimizer"] = optimizer
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # these classes have no source code to be saved with them
            torch.save(content, path, _use_new_zipfile_serialization=not legacy)


def vocabulary_of(words: list[str]) -> dict[str, Any]:
    """The fields of yunjey's Vocabulary."""
    ids = {word: i for i, word in enumerate(words)}
    return {"word2idx": ids, "idx2word": {i: word for word, i in ids.items()}, "idx": len(words)}


def tokenizer_of(words: list[str]) -> dict[str, Any]:
    """The fields of a Tokenizer of Keras, words from id 1."""
    ids = {word: i for i, word in enumerate(words, 1)}
    return {
        "word_counts": OrderedDict((word, 9) for word in words),
        "word_docs": defaultdict(int, dict.fromkeys(words, 9)),
        "filters": '!"#$%&()*+,-./:;<=>?@[\\]^_`{|}~\t\n',
        "split": " ",
        "lower": True,
        "num_words": None,
        "document_count": 40,
        "char_level": False,
        "oov_token": None,
        "index_docs": defaultdict(int, dict.fromkeys(ids.values(), 9)),
        "word_index": ids,
        "index_word": {i: word for word, i in ids.items()},
    }
