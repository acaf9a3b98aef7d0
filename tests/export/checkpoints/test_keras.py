"""Files of Keras: every layout of them, and settings that change the arithmetic."""

import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from export.checkpoints.imported import Source
from export.checkpoints.keras_files import natural
from export.checkpoints.keras_merge import read
from export.checkpoints.keras_networks import Borderless
from export.errors import ExportError
from tests.export.checkpoints import references
from tests.export.checkpoints.cases import NAMES, keras_merge
from tests.export.checkpoints.conftest import Read
from tests.export.checkpoints.foreign import tokenizer_of
from tests.export.checkpoints.keras_writing import merge_layers, write_model, write_weights_of_keras_3
from tests.export.checkpoints.search import BySteps, by_prefix, search
from tests.export.checkpoints.tensors import VGG_FEATURES, keras_model, keras_vgg16

WORDS = [*NAMES, "startseq", "endseq"]


@pytest.fixture
def source(tmp_path: Path) -> Source:
    return keras_merge(tmp_path).source


@pytest.mark.parametrize("file", ["weights.h5", "model.weights.h5", "model.keras"])
def test_all_of_kerass_files_hold_the_same_model(file: str, tmp_path: Path, imported: Callable[[str], Read]) -> None:
    expected = imported("keras-merge").imported.decoder.state_dict()
    found = read(keras_merge(tmp_path, file).source).decoder.state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(value, found[name]) for name, value in expected.items())


@pytest.mark.parametrize("twice", [False, True])
def test_a_tokenizer_can_be_json(twice: bool, source: Source, tmp_path: Path, imported: Callable[[str], Read]) -> None:
    config = tokenizer_of(WORDS)
    written = json.dumps(
        {"class_name": "Tokenizer", "config": {**config, "word_index": json.dumps(config["word_index"])}}
    )
    (tmp_path / "tokenizer.json").write_text(json.dumps(written) if twice else written)
    found = read(replace(source, vocabulary=tmp_path / "tokenizer.json"))
    assert found.words == imported("keras-merge").imported.words


@pytest.mark.parametrize(
    ("version", "setting", "hard"),
    [
        ("2.2.4", {}, True),
        ("2.2.4-tf", {}, False),
        ("2.3.1", {}, False),
        ("2.15.0", {"recurrent_activation": "hard_sigmoid"}, True),
    ],
)
def test_the_gates_are_those_of_the_keras_that_trained(
    version: str, setting: dict[str, Any], hard: bool, source: Source
) -> None:
    layers = merge_layers(lstm=setting)
    if not setting:
        next(layer for layer in layers if layer["class_name"] == "LSTM")["config"].pop("recurrent_activation")
    weights = keras_model(VGG_FEATURES)
    write_model(source.checkpoint, weights, layers, version)
    found = read(source)
    image = torch.linspace(-1, 1, VGG_FEATURES)
    reference = partial(references.keras_merge, weights, image, hard=hard)
    expected = search(by_prefix(reference), found.words, 3)
    assert [caption for caption, _ in search(BySteps(found.decoder, image[None]), found.words, 3)] == [
        caption for caption, _ in expected
    ]
    other = search(by_prefix(partial(references.keras_merge, weights, image, hard=not hard)), found.words, 3)
    assert [score for _, score in expected] != pytest.approx([score for _, score in other], abs=1e-3)


def test_settings_that_this_decoder_does_not_have_are_all_listed(source: Source) -> None:
    layers = merge_layers(embedding={"mask_zero": False}, dense_1={"activation": "gelu"}, lstm={"go_backwards": True})
    layers = [layer for layer in layers if layer["class_name"] != "Add"]
    write_model(source.checkpoint, keras_model(VGG_FEATURES), layers)
    with pytest.raises(ExportError) as caught:
        read(source)
    for fault in (
        "embedding has mask_zero=False, not True, so how the words so far are padded would change the captions",
        "dense_1 has the activation gelu",
        "lstm has go_backwards=True, not False",
        "no layer adds the image to the words",
    ):
        assert fault in str(caught.value)


def test_layers_and_shapes_that_do_not_fit_are_all_listed(source: Source) -> None:
    weights = keras_model(VGG_FEATURES)
    weights["lstm/bias"] = weights["lstm/bias"][:7]
    weights["dense_1/kernel"] = weights["dense_1/kernel"].T
    weights |= {"norm/gamma": weights["dense/bias"], "norm/a": weights["dense/bias"], "norm/b": weights["dense/bias"]}
    write_model(source.checkpoint, {**weights, "norm/c": weights["dense/bias"]}, None)
    with pytest.raises(ExportError) as caught:
        read(source)
    for fault in (
        "the layer norm is unknown",
        "lstm's bias has the shape (7,), not (32,)",
        "dense_1's kernel has the shape (9, 8), not (8, 8)",
    ):
        assert fault in str(caught.value)


def test_a_gru_is_not_an_lstm(source: Source) -> None:
    layers = merge_layers()
    next(layer for layer in layers if layer["class_name"] == "LSTM")["class_name"] = "GRU"
    write_model(source.checkpoint, keras_model(VGG_FEATURES), layers)
    with pytest.raises(ExportError, match=r"the layer lstm \(GRU\) is unknown; 1 layers of the kind lstm are wanted"):
        read(source)


def test_the_network_must_be_known_and_make_what_the_model_reads(source: Source) -> None:
    for changed, message in (
        (replace(source, encoder=None), "vectors of 10 numbers, which several networks make: say which with --encoder"),
        (replace(source, encoder="xception"), "xception of Keras cannot be read: choose vgg16 or inception_v3"),
        (replace(source, encoder_weights=None), "pass Keras's weights of vgg16 with --encoder-weights"),
        (replace(source, encoder_weights=str(source.checkpoint)), "all of .* is unknown|is missing"),
    ):
        with pytest.raises(ExportError, match=message):
            read(changed)


def test_weights_of_a_network_need_the_names_of_its_layers(source: Source, tmp_path: Path) -> None:
    write_weights_of_keras_3(tmp_path / "vgg16.weights.h5", keras_vgg16())
    with pytest.raises(ExportError, match="does not have the names of its layers: pass the file that Keras keeps"):
        read(replace(source, encoder_weights=str(tmp_path / "vgg16.weights.h5")))


def test_pooling_without_a_border_counts_only_what_is_there() -> None:
    planes = torch.rand(2, 3, 5, 4)
    pooled = torch.nn.functional.avg_pool2d(planes, 3, stride=1, padding=1)
    expected = torch.nn.functional.avg_pool2d(planes, 3, stride=1, padding=1, count_include_pad=False)
    torch.testing.assert_close(Borderless()(pooled), expected)


def test_numbered_names_are_ordered_by_number() -> None:
    assert sorted(["conv2d_10", "conv2d_2", "conv2d", "add"], key=natural) == ["add", "conv2d", "conv2d_2", "conv2d_10"]
