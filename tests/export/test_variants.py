"""Other precisions in a bundle: fp32 stays what it is, what is broken is refused, nothing is half done."""

import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest

from engine import Captioner
from engine.bundle.bundle import Bundle
from engine.bundle.manifest import Variant
from export import measure as measuring
from export import variants
from export.additions import add_variants
from export.bundle import ExportOptions, export_bundle
from export.calibration import Calibration, Photographs, observe
from export.errors import ExportError, ParityError
from export.quantise import Observed
from export.to_onnx import main
from export.variants import VariantOptions
from tests.drawn import write_drawn_data
from tests.export.test_bundle import contents

STEPS = ("search_step", "sample_step")
FP32 = {f"{name}.onnx" for name in ("encoder", "decoder_init", "decoder_step", *STEPS)} | {"decoder.weights"}
INT8 = {f"{name}.int8.onnx" for name in ("encoder", *STEPS)} | {"decoder.int8.weights"}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set in Flickr8k's layout: 40 train photographs, 12 dev ones."""
    folder = tmp_path_factory.mktemp("drawn") / "data"
    write_drawn_data(folder, train=40, validation=12)
    return folder


@pytest.fixture(scope="module")
def int8(data: Path) -> VariantOptions:
    return VariantOptions(precisions=("int8",), calibration=(data,), calibration_images=24)


@pytest.fixture(scope="module")
def varied(exported: Bundle, int8: VariantOptions, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The exported bundle with INT8 and float16 added. Tests must not change it."""
    folder = Path(shutil.copytree(exported.path, tmp_path_factory.mktemp("varied") / "bundle"))
    options = VariantOptions(precisions=("fp16", "int8"), calibration=int8.calibration, calibration_images=24)
    assert all(check.passed for check in add_variants(folder, options))
    return folder


@pytest.fixture
def bundle(varied: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(varied, tmp_path / "bundle"))


def test_adding_variants_leaves_every_other_file_as_it_is(exported: Bundle, varied: Path) -> None:
    before, after = contents(exported.path), contents(varied)
    assert {name for name in before if after[name] != before[name]} == {"manifest.json"}
    half = {name.replace(".", ".fp16.") for name in FP32}
    assert after.keys() - before.keys() == half | INT8


def test_fp32_graphs_are_the_same_bytes_whether_or_not_variants_are_asked_for(
    quick: pytest.MonkeyPatch, run: Path, exported: Bundle, tmp_path: Path, data: Path
) -> None:
    both = VariantOptions(precisions=("fp32", "int8"), calibration=(data,), calibration_images=8)
    export_bundle(run, tmp_path / "varied", ExportOptions(name="mine", variants=both))
    plain, with_int8 = contents(exported.path), contents(tmp_path / "varied")
    assert {name: plain[name] for name in FP32} == {name: with_int8[name] for name in FP32}
    assert with_int8.keys() - plain.keys() == INT8
    assert exported.manifest.variants == {"fp32": Variant()}


def test_the_manifest_says_how_variants_were_made_and_how_near_they_are(varied: Path) -> None:
    manifest = Bundle.load(varied).manifest
    assert manifest.variants.keys() == {"fp32", "int8", "fp16"}
    record = manifest.variants["int8"].record
    assert record["weight_bits"] == 7
    assert record["calibration"].keys() == {"photographs", "source", "names_sha256"}
    assert (record["calibration"]["photographs"], record["calibration"]["source"]) == (24, "data, train list")
    assert manifest.variants["int8"].cider is None, "nobody measured it, so that auto keeps to fp32"
    for precision, graphs in (("int8", 4), ("fp16", 6)):
        checks = {name: value for name, value in manifest.parity.items() if name.startswith(f"{precision} ")}
        assert len(checks) == graphs
        assert all(0 < check["max_error"] <= check["tolerance"] for check in checks.values())


@pytest.mark.parametrize("precision", ["int8", "fp16"])
def test_the_engine_runs_each_precision(varied: Path, precision: str) -> None:
    pictures = [np.full((40, 60, 3), shade, np.uint8) for shade in (20, 220)]
    exact, variant = (Captioner(varied, provider="cpu", precision=name) for name in ("fp32", precision))
    features, found = exact.encode(pictures), variant.encode(pictures)
    assert 0 < np.linalg.norm(found - features) < 0.2 * np.linalg.norm(features)
    assert len(variant.caption(pictures)) == 2


def test_float16_graphs_hold_no_float32_weights_and_their_ends_are_float32(varied: Path) -> None:
    bundle = Bundle.load(varied)
    for file in bundle.manifest.graphs:
        exact = bundle.graph(file.graph)
        assert (file.inputs, file.outputs) == (exact.inputs, exact.outputs)
        if file.precision == "fp16":
            graph = onnx.load(varied / file.file).graph
            large = [tensor for tensor in graph.initializer if np.prod(tensor.dims) > 64]
            assert large
            assert {tensor.data_type for tensor in large} == {onnx.TensorProto.FLOAT16}
            onnx.checker.check_model(onnx.load(varied / file.file), full_check=True)


def test_a_variant_is_replaced_alone(bundle: Path, int8: VariantOptions) -> None:
    before = contents(bundle)
    few = VariantOptions(precisions=("int8",), calibration=int8.calibration, calibration_images=5)
    add_variants(bundle, few)
    after = contents(bundle)
    assert {name for name in before.keys() | after.keys() if after.get(name) != before.get(name)} == {
        *("manifest.json", "encoder.int8.onnx")
    }, "the steps are not calibrated"
    assert Bundle.load(bundle).manifest.variants["int8"].record["calibration"]["photographs"] == 5


def test_int8_steps_share_what_they_leave_in_fp32(varied: Path) -> None:
    bundle = Bundle.load(varied)
    for name in STEPS:
        assert bundle.graph(name, "int8").data == ("decoder.int8.weights", "decoder.weights")
    fp32, own = ((varied / name).stat().st_size for name in ("decoder.weights", "decoder.int8.weights"))
    assert own < fp32 / 2


def narrowed(observed: Observed) -> Observed:
    return Observed({name: (low / 50, high / 50) for name, (low, high) in observed.ranges.items()}, observed.means)


def shifted(observed: Observed) -> Observed:
    return Observed(observed.ranges, {name: mean + 1000 for name, mean in observed.means.items()})


@pytest.mark.parametrize("spoil", [narrowed, shifted])
def test_a_sabotaged_calibration_fails_by_name_and_changes_nothing(
    bundle: Path, int8: VariantOptions, monkeypatch: pytest.MonkeyPatch, spoil: Callable[[Observed], Observed]
) -> None:
    before = contents(bundle.parent)
    monkeypatch.setattr(variants, "observe", lambda prepared, pixels: spoil(observe(prepared, pixels)))
    with pytest.raises(
        ParityError, match="nothing was written: checks over their tolerance: int8 encoder, photographs"
    ):
        add_variants(bundle, int8)
    assert contents(bundle.parent) == before


def test_an_interruption_leaves_the_bundle_as_it_was(
    bundle: Path, data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = contents(bundle.parent)

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(variants, "quantise", interrupted)
    assert main(["--output", str(bundle), "--precision", "int8", "--calibration", str(data)]) == 130
    assert capsys.readouterr().err.endswith("is unchanged\n")
    monkeypatch.setattr(measuring, "measure", interrupted)
    assert main(["--output", str(bundle), "--measure", str(data)]) == 130
    assert contents(bundle.parent) == before


def test_measuring_stores_cider_and_speed_of_every_precision(
    bundle: Path, data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)  # scores without Java are quicker
    monkeypatch.setattr(measuring, "SPEED_IMAGES", 4)
    monkeypatch.setattr(measuring, "ROUNDS", 1)
    monkeypatch.setattr(measuring, "available_providers", lambda: ["cpu"])
    record = Bundle.load(bundle).manifest.variants["int8"].record
    assert main(["--output", str(bundle), "--measure", str(data)]) == 0
    measured = Bundle.load(bundle).manifest.variants
    assert measured.keys() == {"fp32", "int8", "fp16"}
    assert all(variant.cider is not None and variant.cider >= 0 for variant in measured.values())
    assert all(variant.images_per_second["cpu"] > 0 for variant in measured.values())
    assert measured["int8"].record == record
    assert f"int8: CIDEr {measured['int8'].cider:.4f}" in capsys.readouterr().out


def test_of_several_data_sets_the_mean_cider_is_stored(
    exported: Bundle, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measuring, "available_providers", lambda: [])
    ciders = iter((0.4, 0.7))
    monkeypatch.setattr(measuring, "evaluate", lambda *_: SimpleNamespace(scores=SimpleNamespace(cider=next(ciders))))
    assert measuring.measure(exported.path, [data, data])["fp32"].cider == 0.55


def test_every_refusal_is_one_sentence_and_exit_code_1(
    run: Path, exported: Bundle, tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    new, there, empty, broken = tmp_path / "new", exported.path, tmp_path / "empty", tmp_path / "broken"
    empty.mkdir()
    broken.mkdir()
    (broken / "a.jpg").write_bytes(b"no photograph")
    refusals = {
        ("--checkpoint", run, "--output", new, "--precision", "fp32,int4"): "unknown precision 'int4': choose from",
        ("--checkpoint", run, "--output", new, "--precision", "fp16"): "always needs fp32",
        ("--checkpoint", run, "--output", new, "--precision", "fp32,int8"): "with --calibration",
        ("--output", there, "--precision", "int8"): "with --calibration",
        ("--output", there, "--precision", "fp16", "--calibration", data): "add int8 to --precision",
        ("--output", there, "--precision", "int8", "--calibration", empty): "has no photographs to calibrate on",
        ("--output", there, "--precision", "int8", "--calibration", new): "has no photographs to calibrate on",
        ("--output", there, "--precision", "int8", "--calibration", broken): "can be read",
        ("--output", there, "--measure", empty): "cannot be measured",
        ("--output", there, "--precision", "int8", "--calibration", data, "--weight-bits", 4): "must be 7 or 8",
        ("--output", new, "--precision", "fp16"): "is not a bundle",
        ("--output", there, "--precision", "int8", "--calibration", data, "--calibration-images", 0): "at least 1",
    }
    before = contents(there)
    for arguments, sentence in refusals.items():
        assert main([str(argument) for argument in arguments]) == 1
        printed = capsys.readouterr()
        assert sentence in printed.err
        assert printed.err.count("\n") == 1
        assert printed.out == ""
    assert contents(there) == before
    assert not new.exists()


def test_calibration_sees_the_train_list_only_and_holds_photographs_back(data: Path, exported: Bundle) -> None:
    photographs = Photographs.find(data)
    assert set(photographs.names) == set((data / "train.txt").read_text().split())
    assert photographs.names == Photographs.find(data).names
    image = exported.manifest.image
    found = Calibration.load(photographs, image, 24)
    assert (len(found.names), len(found.pixels), len(found.held_out)) == (24, 24, 16)
    assert not {pixels.tobytes() for pixels in found.held_out} & {pixels.tobytes() for pixels in found.pixels}
    everything = Calibration.load(photographs, image, 100)
    assert len(everything.names) == 40
    assert everything.record()["names_sha256"] != found.record()["names_sha256"]


def test_photographs_of_several_places_take_turns(data: Path, tmp_path: Path) -> None:
    few = tmp_path / "few"
    few.mkdir()
    shutil.copyfile(data / "images" / "0003.jpg", few / "0003.jpg")
    one, both = Photographs.find(data), Photographs.find(data, few)
    assert both.names[:3] == (f"data/{one.names[0]}", "few/0003.jpg", f"data/{one.names[1]}")
    assert len(both.names) == 41
    assert both.source == "data, train list; few"
    assert both.read("few/0003.jpg") == both.read("data/0003.jpg") == one.read("0003.jpg")
    (tmp_path / "other").mkdir()
    with pytest.raises(ExportError, match="folders have the same name"):
        Photographs.find(few, tmp_path / "other" / ".." / "few")


def test_a_folder_of_photographs_does_as_well(data: Path, exported: Bundle) -> None:
    photographs = Photographs.find(data / "images")
    assert len(photographs.names) == 52
    assert Calibration.load(photographs, exported.manifest.image, 3).record()["source"] == "images"
