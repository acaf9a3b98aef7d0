"""Bundles: every way one can be wrong is one BundleError that says so, before anything runs."""

import json
import shutil
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from engine import BundleError, Captioner, EngineError
from engine.bundle.bundle import GRAPHS, MANIFEST_FILE, Bundle
from engine.bundle.manifest import FORMAT_VERSION, Manifest
from tests.engine.bundle.broken import Edit, edit, fault, graph, words

WEIGHTS = "decoder.weights"
CALIBRATED = {"threshold": 0.6, "intercept": 1.0, "mean": 2.0}


# --- what is there


def test_an_untouched_bundle_loads_from_a_path_or_its_text(folder: Path) -> None:
    bundle = Bundle.load(folder)
    assert Bundle.load(str(folder)) == bundle
    assert bundle.path == folder
    assert len(bundle.vocabulary) == bundle.manifest.vocabulary_size
    assert [bundle.graph(name).graph for name in GRAPHS] == list(GRAPHS)


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda path: None, "it is not an existing folder"),
        (lambda path: path.write_text("a file"), "it is not an existing folder"),
        (lambda path: path.mkdir(), "it has no manifest.json"),
        (lambda path: (path / MANIFEST_FILE).mkdir(parents=True), "it has no manifest.json"),
    ],
    ids=["nothing", "a file", "an empty folder", "a folder named manifest.json"],
)
def test_what_is_no_bundle_is_refused_with_the_way_to_one(
    tmp_path: Path, make: Callable[[Path], object], why: str
) -> None:
    make(tmp_path / "bundle")
    message = fault(tmp_path / "bundle")
    assert why in message
    assert "export.to_onnx" in message


def test_a_bundle_error_is_also_a_value_error_and_reaches_the_captioners_caller(tmp_path: Path) -> None:
    assert issubclass(BundleError, ValueError)
    assert issubclass(BundleError, EngineError)
    with pytest.raises(BundleError):
        Captioner(tmp_path)


def test_no_path_means_the_bundle_that_ships(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.bundle.bundle.SHIPPED", tmp_path / "models")
    with pytest.raises(BundleError, match="there is no bundle in"):
        Bundle.load()
    shutil.copytree(folder, tmp_path / "models" / "tiny")
    assert Bundle.load().path == tmp_path / "models" / "tiny"


def test_a_precision_that_is_not_there_is_named_with_those_that_are(folder: Path) -> None:
    with pytest.raises(BundleError, match=r"no precision 'int8': choose auto, fp32$"):
        Bundle.load(folder).graph("encoder", "int8")
    with pytest.raises(BundleError, match="'int8'"):
        Captioner(folder, precision="int8")


def test_a_precision_may_hold_some_graphs_and_takes_the_others_in_fp32(folder: Path) -> None:
    edit(folder, lambda data: data["graphs"].append({**graph(data, "encoder"), "precision": "int8"}))
    bundle = Bundle.load(folder)
    assert bundle.precisions == ("fp32", "int8")
    assert bundle.graph("encoder", "int8").precision == "int8"
    assert bundle.graph("search_step", "int8").precision == "fp32"


# --- the manifest's fields


@pytest.mark.parametrize("name", [field.name for field in fields(Manifest) if field.name != "vector_size"])
def test_a_missing_field_is_named(folder: Path, name: str) -> None:
    edit(folder, lambda data: data.pop(name))
    assert f"manifest.{name} is missing" in fault(folder)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda data: data.update(colour="red"), "manifest.colour is unknown"),
        (lambda data: data["image"].update(depth=3), "manifest.image.depth is unknown"),
        (lambda data: data["image"].pop("width"), "manifest.image.width is missing"),
        (lambda data: data["graphs"][2].pop("sha256"), "manifest.graphs[2].sha256 is missing"),
        (lambda data: data.update(vocabulary_size="48"), "manifest.vocabulary_size is '48'"),
        (lambda data: data.update(vocabulary_size=48.0), "manifest.vocabulary_size is 48.0"),
        (lambda data: data.update(vocabulary_size=True), "manifest.vocabulary_size is True"),
        (lambda data: data["state"][1].update(shape=[4.5]), "manifest.state[1].shape[0] is 4.5"),
        (lambda data: data["state"][0].pop("next"), "manifest.state[0].next is missing"),
        (lambda data: data.update(name=None), "manifest.name is None"),
        (lambda data: data.update(graphs={}), "manifest.graphs is {}"),
        (lambda data: data.update(image=[]), "manifest.image is []"),
        (lambda data: data["graphs"].append(5), "manifest.graphs[5] is 5"),
        (lambda data: data["image"].update(mean=[1, 2]), "manifest.image.mean is [1, 2]"),
        (lambda data: data["image"].update(std=[1, 2, "3"]), "manifest.image.std[2] is '3'"),
        (lambda data: data["defaults"].update(length_penalty="high"), "manifest.defaults.length_penalty is 'high'"),
        (lambda data: data["words"].update(pad=1), "manifest.words.pad is 1"),
        (lambda data: data["data_sha256"].update({WEIGHTS: None}), f"manifest.data_sha256.{WEIGHTS} is None"),
        (lambda data: graph(data, "encoder").update(data="x"), "manifest.graphs[0].data is 'x'"),
        (lambda data: graph(data, "encoder")["inputs"][0].update(shape=[1.5]), "inputs[0].shape[0] is 1.5"),
        (lambda data: data.update(parity=[]), "manifest.parity is []"),
        (lambda data: data["image"].update(resample="gaussian"), "gaussian"),
        (
            lambda data: data["image"].update(resize="pad"),
            "image.resize is 'pad' and must be one of squash, crop, letterbox",
        ),
        (lambda data: data["image"].update(height=96), "must be uint8 ['batch', 96, "),
        (lambda data: data["image"].update(std=[0, 1, 1]), "std"),
        (lambda data: data["defaults"].update(max_length=0), "max_length"),
        (lambda data: data["defaults"].update(beam_size=-1), "beam_size"),
        (lambda data: data["defaults"].update(length_penalty=-1.0), "length_penalty"),
        (lambda data: data["defaults"].update(no_repeat_ngram_size=-1), "no_repeat_ngram_size"),
        (lambda data: data["defaults"].update(bad_endings=["of", "with a"]), "bad_endings"),
        (lambda data: data["defaults"].update(bad_endings=["The"]), "bad_endings"),
        (lambda data: data.update(confidence={"mean": 1.0}), "confidence.intercept is missing"),
        (lambda data: data.update(confidence=CALIBRATED | {"words": 1.0}), "confidence.words is unknown"),
        (lambda data: data.update(confidence=CALIBRATED | {"mean": float("nan")}), "confidence.mean is nan"),
        (lambda data: graph(data, "encoder")["inputs"][0].update(dtype="float32"), "float32"),
        (lambda data: graph(data, "decoder_step")["outputs"][0].update(shape=["rows", 5]), "is float32 ['rows', 5]"),
        (lambda data: data.update(variants={"int8": {"cider": 0.5, "images_per_second": {}, "record": {}}}), "int8"),
        (lambda data: data["graphs"].append(graph(data, "encoder")), "twice"),
    ],
)
def test_a_field_of_another_name_type_or_value_is_named(folder: Path, change: Edit, named: str) -> None:
    edit(folder, change)
    assert named in fault(folder)


def test_a_field_that_is_missing_does_not_hide_one_of_the_wrong_type(folder: Path) -> None:
    edit(folder, lambda data: (data.pop("name"), data.update(encoder=48), data["image"].update(height=None, depth=1)))
    message = fault(folder)
    named = ("manifest.name is missing", "manifest.encoder is 48", "image.height is None", "image.depth is unknown")
    assert [part for part in named if part not in message] == []


# --- the graphs that the manifest describes


@pytest.mark.parametrize("name", GRAPHS)
def test_a_bundle_without_one_of_its_graphs_is_refused(folder: Path, name: str) -> None:
    edit(folder, lambda data: data["graphs"].remove(graph(data, name)))
    assert f"the manifest has no {name} graph" in fault(folder)


@pytest.mark.parametrize(
    ("name", "change"), [*((name, "renamed") for name in GRAPHS), ("encoder", "one more"), ("encoder", "one less")]
)
@pytest.mark.parametrize("side", ["inputs", "outputs"])
def test_a_graph_with_other_inputs_or_outputs_is_refused(folder: Path, name: str, side: str, change: str) -> None:
    def alter(data: dict[str, Any]) -> None:
        tensors = graph(data, name)[side]
        if change == "renamed":
            tensors[0]["name"] = "mystery"
        elif change == "one more":
            tensors.append({"name": "mystery", "dtype": "float32", "shape": ["rows"]})
        else:
            tensors.pop()

    edit(folder, alter)
    assert f"{name}.onnx has the {side} [" in fault(folder)


@pytest.mark.parametrize(
    ("name", "side", "tensor", "shape", "said"),
    [
        ("encoder", "outputs", "features", ["batch", 7], "must be float32 ['batch', 64]"),
        ("decoder_init", "inputs", "features", ["batch", 7], "must be float32 ['batch', 64]"),
        ("decoder_init", "outputs", "cell", ["rows", 7], "must be float32 ['batch', 48]"),
        ("search_step", "inputs", "hidden", ["rows"], "must be float32 ['state_rows', 48]"),
        ("search_step", "inputs", "k", [2], "must be int64 [1]"),
        ("sample_step", "inputs", "temperature", [1], "must be float32 ['rows']"),
    ],
)
def test_a_graph_of_another_shape_than_the_manifest_says_is_refused(
    folder: Path, name: str, side: str, tensor: str, shape: list[Any], said: str
) -> None:
    def change(data: dict[str, Any]) -> None:
        next(entry for entry in graph(data, name)[side] if entry["name"] == tensor)["shape"] = shape

    edit(folder, change)
    message = fault(folder)
    assert f"{name}.onnx: {tensor} is " in message
    assert f"{shape} and {said}" in message


def test_a_weight_file_that_the_manifest_does_not_list_is_refused(folder: Path) -> None:
    edit(folder, lambda data: graph(data, "encoder").update(data=["encoder.weights"]))
    assert "encoder.onnx needs encoder.weights, which the manifest does not list" in fault(folder)


def test_all_faults_stand_in_one_message(folder: Path) -> None:
    (folder / "encoder.onnx").unlink()
    (folder / WEIGHTS).write_bytes(b"")
    words(folder, lambda found: found.append("zebra"))
    edit(
        folder,
        lambda data: (
            data["graphs"].remove(graph(data, "decoder_step")),
            data["image"].update(resize="pad"),
            graph(data, "search_step")["inputs"].pop(0),
            data["data_sha256"].update({"../x": "0"}),
        ),
    )
    message = fault(folder)
    named = (
        "encoder.onnx is missing",
        f"{WEIGHTS} is corrupt",
        "vocabulary.json is corrupt",
        "vocabulary.json has",
        "image.resize is 'pad'",
        "no decoder_step graph",
        "search_step.onnx has the inputs",
        "'../x' is not a plain file name",
    )
    assert [part for part in named if part not in message] == []
    assert message.count(";") == len(named) - 1


def test_a_manifest_survives_json(tiny_bundle: Path) -> None:
    for path in (None, tiny_bundle):
        manifest = Bundle.load(path).manifest
        data = json.loads(json.dumps(manifest.to_dict()))
        assert data["format_version"] == FORMAT_VERSION
        assert Manifest.from_dict(data) == manifest
