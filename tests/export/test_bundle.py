"""Writing bundles: the halves, the manifest, and that what stood there is never damaged."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch

from benchmarks.baselines.plain_session import PlainSession
from engine.bundle.bundle import Bundle
from engine.bundle.manifest import Variant
from export import modules
from export.additions import amend, save_manifest
from export.bundle import ExportOptions, export_bundle
from export.errors import ExportError
from tests.export.runs import ENCODER, OPTIONS, SCORES, WORDS, small_decoder, write_run
from training.models.encoders import load_encoder

CALIBRATED = {"threshold": 0.65, "intercept": 3.0, "mean": 1.5}


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, hidden ones too, by its path."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def other_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("other") / "run", small_decoder(seed=1))


def test_exporting_twice_gives_the_same_files(
    quick: pytest.MonkeyPatch, run: Path, exported: Bundle, tmp_path: Path
) -> None:
    export_bundle(run, tmp_path / "again", OPTIONS)  # traced anew, once for all tests of `quick`
    first, again = contents(exported.path), contents(tmp_path / "again")
    manifests = [json.loads(files.pop("manifest.json")) for files in (first, again)]
    assert first == again
    assert first.keys() == {
        *(f"{name}.onnx" for name in ("encoder", "decoder_init", "decoder_step")),
        *(f"{name}.onnx" for name in ("search_step", "sample_step")),
        "decoder.weights",
        "vocabulary.json",
    }
    for manifest in manifests:
        assert manifest.pop("parity")  # fewer batch sizes in the second
    assert manifests[0] == manifests[1]


def test_the_manifest_records_how_the_bundle_came_to_be(exported: Bundle) -> None:
    manifest = exported.manifest
    assert (manifest.encoder, manifest.image.height, manifest.quality) == (ENCODER, 160, SCORES)
    assert all(value["max_error"] <= value["tolerance"] for value in manifest.parity.values())
    assert {name.split(",")[0] for name in manifest.parity} == {
        *("encoder", "decoder_init", "decoder_step", "search_step", "sample_step", "greedy decode")
    }
    assert manifest.provenance["encoder"]["weights"] == "random"
    assert len(manifest.provenance["encoder"]["fingerprint"]) == 64
    assert manifest.provenance["decoder"]["training"] == [
        {"run": "run", "kind": "cross-entropy", "options": {"seed": 7, "encoder_weights": "somewhere.pth"}}
    ]
    for half in ("encoder", "decoder"):
        assert manifest.versions[half].keys() >= {"opset", "python", "torch", "timm", "onnx", "onnxruntime"}


def test_options_reach_the_manifest(quick: pytest.MonkeyPatch, run: Path, tmp_path: Path) -> None:
    options = ExportOptions(
        name="shapes",
        defaults={"beam_size": 5, "length_penalty": 0.7},
        provenance={"decoder": {"licence": "CC0"}, "made_by": "a test"},
        quality=SCORES,
        confidence=CALIBRATED,
    )
    export_bundle(run, tmp_path / "bundle", options)
    manifest = Bundle.load(tmp_path / "bundle").manifest
    assert (manifest.name, manifest.quality, manifest.provenance["made_by"]) == ("shapes", SCORES, "a test")
    assert manifest.confidence == CALIBRATED
    assert (manifest.provenance["decoder"]["licence"], manifest.provenance["decoder"]["checkpoint"]) == ("CC0", "best")
    assert (manifest.defaults.beam_size, manifest.defaults.max_length, manifest.defaults.length_penalty) == (5, 20, 0.7)


def test_a_shift_changes_the_odds_of_a_word_by_so_much(
    quick: pytest.MonkeyPatch, run: Path, exported: Bundle, tmp_path: Path
) -> None:
    export_bundle(run, tmp_path / "bundle", ExportOptions(shifts={"word7": -0.9, "word8": 0.5}))
    shifted = Bundle.load(tmp_path / "bundle")
    features = np.random.default_rng(0).standard_normal((3, 96), dtype=np.float32)
    before, after = (
        PlainSession(bundle).score(np.full(3, WORDS.start_id), PlainSession(bundle).start(features))[0]
        for bundle in (exported, shifted)
    )
    change = (after - before) - (after - before)[:, [WORDS.ids["word9"]]]
    np.testing.assert_allclose(change[:, WORDS.ids["word7"]], -0.9, atol=1e-4)
    np.testing.assert_allclose(change[:, WORDS.ids["word8"]], 0.5, atol=1e-4)
    np.testing.assert_allclose(change[:, WORDS.ids["word10"]], 0, atol=1e-4)
    assert shifted.manifest.provenance["decoder"]["shifts"] == {"word7": -0.9, "word8": 0.5}


@pytest.mark.parametrize("shifts", [{"zebra": 1.0}, {"word7": float("inf")}])
def test_a_shift_of_no_word_or_of_no_number_is_refused(run: Path, tmp_path: Path, shifts: dict[str, float]) -> None:
    with pytest.raises(ExportError, match="it must be a number, for a word of the vocabulary"):
        export_bundle(run, tmp_path / "bundle", ExportOptions(shifts=shifts))


def test_a_default_that_no_search_could_use_is_refused(run: Path, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="resize must be one of squash, crop, letterbox, not 'pad'"):
        export_bundle(run, tmp_path / "bundle", ExportOptions(resize="pad"))
    with pytest.raises(ExportError, match="beam_size"):
        export_bundle(run, tmp_path / "bundle", ExportOptions(defaults={"beam_size": 0}))


@pytest.fixture
def bundle(quick: pytest.MonkeyPatch, exported: Bundle, tmp_path: Path) -> Path:
    """A bundle in a folder of its own; what is exported into it is traced once for all tests."""
    return Path(shutil.copytree(exported.path, tmp_path / "bundle"))


def test_a_large_encoder_keeps_its_weights_in_a_file_of_its_own(
    bundle: Path, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(modules, "LARGEST_GRAPH", 1000)
    export_bundle(run, bundle, overwrite=True)
    assert (bundle / "encoder.weights").stat().st_size > 10 * (bundle / "encoder.onnx").stat().st_size
    assert Bundle.load(bundle).graph("encoder").data == ("encoder.weights",)


def test_encoder_weights_that_the_decoder_was_not_trained_on_are_refused(run: Path, tmp_path: Path) -> None:
    network = load_encoder(ENCODER, "random").network
    weights = {name: (tensor + 1).contiguous() for name, tensor in network.state_dict().items()}
    safetensors.torch.save_file(weights, tmp_path / "other.safetensors")
    with pytest.raises(ExportError, match="--encoder-weights"):
        export_bundle(run, tmp_path / "bundle", encoder_weights=str(tmp_path / "other.safetensors"))
    assert not (tmp_path / "bundle").exists()


def test_overwrite_never_deletes_a_folder_that_is_no_bundle(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(ExportError, match="is not a bundle"):
        export_bundle(tmp_path / "no run is read", tmp_path, overwrite=True)
    assert contents(tmp_path) == {"thesis.txt": b"years of work"}


STAGES = {
    "writing the weights": (modules, "share_weights"),
    "verifying": (modules, "verify"),
    "publishing": (Path, "rename"),
}


@pytest.mark.parametrize("stage", STAGES)
def test_an_interrupted_export_never_damages_what_was_there(
    bundle: Path, other_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    before = contents(tmp_path)

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(*STAGES[stage], interrupted)
    for output in (bundle, tmp_path / "new"):
        with pytest.raises(KeyboardInterrupt):
            export_bundle(other_run, output, overwrite=True)
    assert contents(tmp_path) == before


def test_overwrite_replaces_the_whole_bundle(bundle: Path, other_run: Path, tmp_path: Path) -> None:
    (bundle / "left over").touch()
    export_bundle(other_run, bundle, overwrite=True)
    assert Bundle.load(bundle).manifest.name == f"{ENCODER}-lstm24"
    assert not (bundle / "left over").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_scores_and_a_confidence_are_added_later_without_exporting_again(bundle: Path) -> None:
    before, old = contents(bundle), Bundle.load(bundle).manifest
    amend(bundle, quality={"cider": 0.4})
    amend(bundle, confidence=CALIBRATED)
    after = contents(bundle)
    assert {name for name in after if after[name] != before.get(name)} == {"manifest.json"}
    assert Bundle.load(bundle).manifest == replace(old, quality={"cider": 0.4}, confidence=CALIBRATED)
    with pytest.raises(ExportError, match="intercept is missing"):
        amend(bundle, confidence={"threshold": 0.5})
    assert contents(bundle) == after


@pytest.mark.parametrize(
    ("same", "other", "wrong", "sentence"),
    [
        ({"resize": "squash"}, {"resize": "crop"}, {"resize": "pad"}, "must be one of squash, crop, letterbox"),
        (
            {"defaults": {"max_length": 12}},
            {"defaults": {"no_repeat_ngram_size": 3, "bad_endings": ("a", "of")}},
            {"defaults": {"bad_endings": ("with a",)}},
            "bad_endings",
        ),
    ],
)
def test_what_was_measured_goes_when_resize_rule_or_defaults_change(
    bundle: Path, same: dict[str, Any], other: dict[str, Any], wrong: dict[str, Any], sentence: str
) -> None:
    before, old = contents(bundle), Bundle.load(bundle).manifest
    save_manifest(bundle, replace(old, quality={"cider": 0.4}, variants={"fp32": Variant(0.4, {"cpu": 75.0})}))
    amend(bundle, **same)
    assert Bundle.load(bundle).manifest.quality == {"cider": 0.4}, "nothing has changed"
    amend(bundle, **other)
    after, manifest = contents(bundle), Bundle.load(bundle).manifest
    assert {name for name in after if after[name] != before.get(name)} == {"manifest.json"}
    assert manifest.image == replace(old.image, resize=other.get("resize", "squash"))
    assert manifest.defaults == replace(old.defaults, **other.get("defaults", {}))
    assert (manifest.quality, manifest.variants) == ({}, {"fp32": Variant(None, {"cpu": 75.0})})
    with pytest.raises(ExportError, match=sentence):
        amend(bundle, **wrong)
    assert contents(bundle) == after
