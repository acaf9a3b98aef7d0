"""Laws of compiled encoders: ONNX Runtime computes what PyTorch does, or PyTorch does it and one line says why."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.training.data.test_features import IMAGE, Drawings, files, make, run
from training.data import features
from training.data.features import compute_features
from training.models import compiled as compiling
from training.models.compiled import compiled, eager
from training.models.encoders import load_encoder
from training.models.finetune import split

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (5, 160, 160, 3), dtype=np.uint8)


def test_compiled_features_are_eager_ones_for_whole_batches_and_what_is_left(
    pixels: np.ndarray, capsys: pytest.CaptureFixture[str]
) -> None:
    stem, _ = split(load_encoder("test_efficientnet", "random"), "3")
    assert stem is not None
    fast, slow = compiled(stem, pixels), eager(stem, CPU)
    for count in (5, 1, 3):
        assert fast(pixels[:count]).shape == (count, *stem.output_shape)
        np.testing.assert_allclose(fast(pixels[:count]), slow(pixels[:count]), rtol=1e-4, atol=1e-5)
    assert capsys.readouterr().out == ""


def test_without_onnx_runtime_pytorch_computes_and_says_so(
    pixels: np.ndarray, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    encoder = load_encoder("test_efficientnet", "random")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    np.testing.assert_array_equal(compiled(encoder, pixels)(pixels), eager(encoder, CPU)(pixels))
    said = capsys.readouterr().out
    assert said.count("\n") == 1
    assert "computed by PyTorch" in said
    assert "onnxruntime" in said


def test_a_session_that_computes_something_else_is_not_used(
    pixels: np.ndarray, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    encoder = load_encoder("test_efficientnet", "random")
    monkeypatch.setattr(compiling, "_session", lambda network, _: lambda some: eager(network, CPU)(some) * 1.01 + 0.01)
    np.testing.assert_array_equal(compiled(encoder, pixels)(pixels), eager(encoder, CPU)(pixels))
    assert "ONNX Runtime differs from PyTorch by" in capsys.readouterr().out


def test_many_images_are_computed_by_onnx_runtime_and_few_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []

    def watched(network: torch.nn.Module, pixels: np.ndarray) -> compiling.Function:
        sizes.append(len(pixels))
        return eager(network, CPU)

    monkeypatch.setattr(features, "compiled", watched)
    compute_features(Drawings(broken=(1,)), make()[0], tmp_path / "few", batch_size=3, progress=False)
    assert sizes == []
    monkeypatch.setattr(features, "WORTH_COMPILING", 11)
    compute_features(Drawings(broken=(1,)), make(image=IMAGE)[0], tmp_path / "many", batch_size=3, progress=False)
    assert sizes == [3]  # once, at the first whole batch
    assert (tmp_path / "few" / "features.npy").read_bytes() == (tmp_path / "many" / "features.npy").read_bytes()


def off_by_a_hair(network: torch.nn.Module, pixels: np.ndarray) -> compiling.Function:
    """What ONNX Runtime is to PyTorch, but so that float16 shows it."""
    return lambda some: eager(network, CPU)(some) * 1.01


@pytest.mark.parametrize("dies_at", [1, 3])
def test_features_that_were_begun_compiled_are_gone_on_with_compiled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dies_at: int
) -> None:
    monkeypatch.setattr(features, "compiled", off_by_a_hair)
    monkeypatch.setattr(features, "WORTH_COMPILING", 10)  # of 11, in batches of 3 with broken ones here and there
    broken = (1, 4, 9)
    run(tmp_path / "whole", make()[0], Drawings(broken))
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cut", make(dies_at)[0], Drawings(broken))
    run(tmp_path / "cut", make()[0], Drawings(broken))
    assert files(tmp_path / "cut") == files(tmp_path / "whole")


def test_features_half_made_in_another_way_are_made_anew_and_finished_ones_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(features, "compiled", off_by_a_hair)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "store", make(2)[0])
    monkeypatch.setattr(features, "WORTH_COMPILING", 11)
    run(tmp_path / "store", make()[0])
    run(tmp_path / "whole", make()[0])
    assert files(tmp_path / "store") == files(tmp_path / "whole")
    monkeypatch.setattr(features, "WORTH_COMPILING", 12)
    encoder, network = make()
    run(tmp_path / "store", encoder)
    assert network.batches == 0
