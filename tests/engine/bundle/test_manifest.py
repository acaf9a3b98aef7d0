"""Manifests: format 3 is read as format 4, and tensors that no graph could have are refused."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engine import BundleError, Captioner, Greedy
from engine.bundle.bundle import MANIFEST_FILE, Bundle
from engine.bundle.manifest import Manifest
from tests.engine.bundle.broken import edit

SPECIAL = {"#PAD#": 1, "#UNK#": 3, "#START#": 2, "#END#": 0}


def as_format_3(data: dict[str, Any]) -> None:
    """Rewrites a manifest as earlier versions did, with the graph that they had besides."""
    (units,) = data["state"][0]["shape"]
    (size,) = data["feature_shape"]
    for name in ("state", "context", "attention", "feature_shape", "words"):
        del data[name]
    step = next(graph for graph in data["graphs"] if graph["graph"] == "sample_step")
    data["graphs"].append({**step, "graph": "greedy_step"})
    data.update(format_version=3, units=units, feature_size=size, special_ids=SPECIAL)


def test_a_bundle_of_format_3_opens_and_captions_as_before(
    folder: Path, tiny_captioner: Captioner, drawn_data: Path
) -> None:
    before = Bundle.load(folder)
    edit(folder, as_format_3)
    assert Bundle.load(folder) == before
    images = sorted((drawn_data / "images").iterdir())[:3]
    captioner = Captioner(folder, provider="cpu")
    for decoding in (None, Greedy()):
        given = [] if decoding is None else [decoding]
        assert captioner.caption(images, *given) == tiny_captioner.caption(images, *given)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda data: data.pop("units"), "manifest.state is missing"),
        (lambda data: data.update(units="many"), "manifest.state[0].shape[0] is 'many'"),
        (lambda data: data.pop("graphs"), "manifest.graphs is missing"),
        (lambda data: data.update(mystery=1), "manifest.mystery is unknown"),
    ],
)
def test_what_is_wrong_in_format_3_is_named(folder: Path, change: Callable[[dict[str, Any]], Any], said: str) -> None:
    edit(folder, as_format_3)
    edit(folder, change)
    with pytest.raises(BundleError) as caught:
        Bundle.load(folder)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda data: data["state"].clear(), "state is [] and must be at least one tensor"),
        (lambda data: data["state"][0].update(name="bias"), "'bias' and must be the name of no other"),
        (lambda data: data["state"][0].update(next="cell"), "'cell' and must be the name of no other"),
        (lambda data: data["state"][0].update(name="a b"), "'a b' and must be a word of letters and digits"),
        (lambda data: data["state"][0].update(shape=[0]), "hidden.shape is (0,) and must be sizes from 1"),
        (lambda data: data["state"][0].update(dtype="float64"), "hidden.dtype is 'float64' and must be one of float32"),
        (lambda data: data.update(feature_shape=[]), "feature_shape is () and must be sizes from 1"),
        (lambda data: data.update(attention=[0, 2]), "attention is (0, 2) and must be sizes from 1"),
        (
            lambda data: data["context"].append({"name": "grid", "dtype": "float32", "shape": [9, 8]}),
            "decoder_init.onnx has the outputs ['cell', 'hidden'] instead of ['cell', 'grid', 'hidden']",
        ),
        (lambda data: data["words"].update(pattern="("), "'(', which splits text into words, is no pattern"),
        (lambda data: data["words"].update(end="<eos>"), "lacks the special words ['<eos>']"),
        (lambda data: data["defaults"].update(bad_endings=["a."]), "must be words as this vocabulary writes them"),
    ],
)
def test_a_manifest_that_describes_no_possible_model_is_refused(
    folder: Path, change: Callable[[dict[str, Any]], Any], said: str
) -> None:
    edit(folder, change)
    with pytest.raises(BundleError) as caught:
        Bundle.load(folder)
    assert said in str(caught.value)


def test_other_decoders_survive_json(attention_bundle: Path, counting_bundle: Path) -> None:
    for folder in (attention_bundle, counting_bundle):
        manifest = Bundle.load(folder).manifest
        assert Manifest.from_dict(json.loads((folder / MANIFEST_FILE).read_text())) == manifest
