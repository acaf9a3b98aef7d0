"""Bundles: every way one can be wrong is one BundleError that says so, before anything runs."""

import json
import shutil
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from engine import BundleError, Captioner, EngineError
from engine.bundle.bundle import GRAPHS, MANIFEST_FILE, VOCABULARY_FILE, Bundle, sha256
from engine.bundle.manifest import FORMAT_VERSION, Manifest

WEIGHTS = "decoder.weights"
FILES = [*(f"{name}.onnx" for name in GRAPHS), WEIGHTS]
CALIBRATED = {"threshold": 0.6, "intercept": 1.0, "mean": 2.0}
Edit = Callable[[dict[str, Any]], object]


@pytest.fixture
def folder(tiny_bundle: Path, tmp_path: Path) -> Path:
    """A bundle of one's own, to break."""
    return Path(shutil.copytree(tiny_bundle, tmp_path / "bundle"))


def edit(folder: Path, change: Edit) -> None:
    """Rewrites the manifest after a change to its JSON."""
    data = json.loads((folder / MANIFEST_FILE).read_text(encoding="utf-8"))
    change(data)
    (folder / MANIFEST_FILE).write_text(json.dumps(data), encoding="utf-8")


def words(folder: Path, change: Callable[[list[str]], object]) -> None:
    """Rewrites the vocabulary after a change to its list."""
    data = json.loads((folder / VOCABULARY_FILE).read_text(encoding="utf-8"))
    change(data)
    (folder / VOCABULARY_FILE).write_text(json.dumps(data), encoding="utf-8")


def fault(folder: Path) -> str:
    """Returns the message with which a bundle is refused; it names the folder and is one line."""
    with pytest.raises(BundleError) as caught:
        Bundle.load(folder)
    message = str(caught.value)
    assert str(folder) in message
    assert "\n" not in message
    return message


def graph(data: dict[str, Any], name: str) -> dict[str, Any]:
    """Returns the manifest's entry of a graph."""
    return next(entry for entry in data["graphs"] if entry["graph"] == name)


# --- what is there


def test_an_untouched_bundle_loads_from_a_path_or_its_text(folder: Path) -> None:
    bundle = Bundle.load(folder)
    assert Bundle.load(str(folder)) == bundle
    assert bundle.path == folder
    assert len(bundle.vocabulary) == bundle.manifest.vocabulary_size
    assert [bundle.graph(name).graph for name in GRAPHS] == list(GRAPHS)


def test_other_files_in_the_folder_do_no_harm(folder: Path) -> None:
    (folder / "README.md").write_text("notes")
    Bundle.load(folder)


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
    with pytest.raises(BundleError, match=r"no precision 'int8': choose fp32$"):
        Bundle.load(folder).graph("encoder", "int8")
    with pytest.raises(BundleError, match="'int8'"):
        Captioner(folder, precision="int8")


def test_a_precision_may_hold_some_graphs_and_takes_the_others_in_fp32(folder: Path) -> None:
    edit(folder, lambda data: data["graphs"].append({**graph(data, "encoder"), "precision": "int8"}))
    bundle = Bundle.load(folder)
    assert bundle.precisions == ("fp32", "int8")
    assert bundle.graph("encoder", "int8").precision == "int8"
    assert bundle.graph("search_step", "int8").precision == "fp32"


# --- damaged files


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


def test_a_vocabulary_of_another_size_is_named_with_both_sizes(folder: Path) -> None:
    words(folder, lambda found: found.append("zebra"))
    size = json.loads((folder / MANIFEST_FILE).read_text())["vocabulary_size"]
    assert f"vocabulary.json has {size + 1} words, the manifest says {size}" in fault(folder)


def test_a_vocabulary_with_a_word_twice_or_without_a_special_word_is_named(folder: Path) -> None:
    words(folder, lambda found: found.append(found[-1]))
    assert "occur twice" in fault(folder)
    words(folder, lambda found: found.__setitem__(slice(None), [word for word in set(found) if word != "#UNK#"]))
    assert "#UNK#" in fault(folder)


@pytest.mark.parametrize("word", ["#PAD#", "#UNK#", "#START#", "#END#"])
def test_a_special_word_with_another_id_is_named(folder: Path, word: str) -> None:
    edit(folder, lambda data: data["special_ids"].update({word: 11}))
    message = fault(folder)
    assert message.count("in the vocabulary and") == 1
    assert f"{word} has the id" in message
    assert "11 in the manifest" in message


# --- the manifest's fields


@pytest.mark.parametrize("name", [field.name for field in fields(Manifest)])
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
        (lambda data: data.update(units="48"), "manifest.units is '48'"),
        (lambda data: data.update(units=48.0), "manifest.units is 48.0"),
        (lambda data: data.update(units=True), "manifest.units is True"),
        (lambda data: data.update(name=None), "manifest.name is None"),
        (lambda data: data.update(graphs={}), "manifest.graphs is {}"),
        (lambda data: data.update(image=[]), "manifest.image is []"),
        (lambda data: data["graphs"].append(5), "manifest.graphs[6] is 5"),
        (lambda data: data["image"].update(mean=[1, 2]), "manifest.image.mean is [1, 2]"),
        (lambda data: data["image"].update(std=[1, 2, "3"]), "manifest.image.std[2] is '3'"),
        (lambda data: data["defaults"].update(length_penalty="high"), "manifest.defaults.length_penalty is 'high'"),
        (lambda data: data["special_ids"].update({"#PAD#": "one"}), "manifest.special_ids.#PAD# is 'one'"),
        (lambda data: data["data_sha256"].update({WEIGHTS: None}), f"manifest.data_sha256.{WEIGHTS} is None"),
        (lambda data: graph(data, "encoder").update(data="x"), "manifest.graphs[0].data is 'x'"),
        (lambda data: graph(data, "encoder")["inputs"][0].update(shape=[1.5]), "inputs[0].shape[0] is 1.5"),
        (lambda data: data.update(parity=[]), "manifest.parity is []"),
    ],
)
def test_an_unknown_missing_or_mistyped_field_is_named_with_its_place(folder: Path, change: Edit, named: str) -> None:
    edit(folder, change)
    assert named in fault(folder)


def test_a_field_that_is_missing_does_not_hide_one_of_the_wrong_type(folder: Path) -> None:
    edit(folder, lambda data: (data.pop("name"), data.update(units="48"), data["image"].update(height=None, depth=1)))
    message = fault(folder)
    named = ("manifest.name is missing", "manifest.units is '48'", "image.height is None", "image.depth is unknown")
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
        ("encoder", "outputs", "features", ["batch", 7], "must be float32 ['batch', {feature_size}]"),
        ("decoder_init", "inputs", "features", ["batch", 7], "must be float32 ['batch', {feature_size}]"),
        ("decoder_init", "outputs", "cell", ["rows", 7], "must be float32 ['rows', {units}]"),
        ("search_step", "inputs", "hidden", ["rows"], "must be float32 ['state_rows', {units}]"),
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
    sizes = json.loads((folder / MANIFEST_FILE).read_text())
    message = fault(folder)
    assert f"{name}.onnx: {tensor} is " in message
    assert f"{shape} and {said.format(**sizes)}" in message


def test_a_weight_file_that_the_manifest_does_not_list_is_refused(folder: Path) -> None:
    edit(folder, lambda data: graph(data, "encoder").update(data=["encoder.weights"]))
    assert "encoder.onnx needs encoder.weights, which the manifest does not list" in fault(folder)


@pytest.mark.parametrize(
    ("change", "named"),
    [
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
def test_values_that_the_engine_cannot_run_are_named(folder: Path, change: Edit, named: str) -> None:
    edit(folder, change)
    assert named in fault(folder)


def test_a_vocabulary_with_two_words_exchanged_is_named(folder: Path) -> None:
    words(folder, lambda found: found.__setitem__(slice(5, 7), found[6:4:-1]))
    assert "vocabulary.json is corrupt" in fault(folder)


def test_all_faults_stand_in_one_message(folder: Path) -> None:
    (folder / "encoder.onnx").unlink()
    (folder / WEIGHTS).write_bytes(b"")
    words(folder, lambda found: found.append("zebra"))
    edit(
        folder,
        lambda data: (
            data["graphs"].remove(graph(data, "decoder_step")),
            data["special_ids"].update({"#END#": 9}),
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
        "#END# has the id",
        "no decoder_step graph",
        "search_step.onnx has the inputs",
        "'../x' is not a plain file name",
    )
    assert [part for part in named if part not in message] == []
    assert message.count(";") == len(named) - 1


def test_an_unreadable_vocabulary_does_not_hide_a_damaged_file(folder: Path) -> None:
    (folder / VOCABULARY_FILE).unlink()
    (folder / "encoder.onnx").write_bytes(b"")
    message = fault(folder)
    assert "vocabulary.json cannot be read" in message
    assert "encoder.onnx is corrupt" in message


# --- writing and reading


def test_the_digest_is_sha_256(tmp_path: Path) -> None:
    (tmp_path / "abc").write_bytes(b"abc")
    assert sha256(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_a_manifest_survives_json(tiny_bundle: Path) -> None:
    for path in (None, tiny_bundle):
        manifest = Bundle.load(path).manifest
        data = json.loads(json.dumps(manifest.to_dict()))
        assert data["format_version"] == FORMAT_VERSION
        assert Manifest.from_dict(data) == manifest
