"""The verification: it finds what is wrong, and says which graph."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from onnx import ModelProto, helper, numpy_helper

from engine.bundle.bundle import Bundle
from export import bundle as exporting
from export import modules
from export.decode import Decoded, EngineGreedy, OnnxDecoder, TorchDecoder, decode_error, greedy
from export.errors import ExportError, ParityError
from export.pictures import draw_pictures, find_pictures
from export.verify import Check, table
from tests.export.runs import WORDS
from training.models.decoder import CaptionDecoder

LONGEST = 12  # as OPTIONS says


def test_engine_equals_portable_step_equals_pytorch_word_for_word(exported: Bundle, decoder: CaptionDecoder) -> None:
    features = np.random.default_rng(0).standard_normal((16, 96), dtype=np.float32)
    paths = [exported.path / f"{name}.onnx" for name in ("decoder_init", "decoder_step")]
    init, step = (ort.InferenceSession(path, providers=["CPUExecutionProvider"]) for path in paths)
    reference = greedy(TorchDecoder(decoder), features, WORDS, LONGEST)
    portable = greedy(OnnxDecoder(exported.manifest, init, step), features, WORDS, LONGEST)
    engine = EngineGreedy(exported).from_features(features)
    assert len(np.unique(reference.ids, axis=0)) > 8, "the test needs sentences that differ"
    for decoded in (portable, engine):
        np.testing.assert_array_equal(decoded.ids, reference.ids)
        np.testing.assert_allclose(decoded.log_probs, reference.log_probs, atol=1e-4)


def test_a_decode_has_no_error_against_itself_and_a_large_one_when_anything_changes(decoder: CaptionDecoder) -> None:
    reference = TorchDecoder(decoder)
    features = np.random.default_rng(1).standard_normal((4, 96), dtype=np.float32)
    right = greedy(reference, features, WORDS, LONGEST)
    assert decode_error(reference, features, right, WORDS) == 0

    def error(row: int, position: int, token: int, log_prob: float = 0) -> float:
        ids, log_probs = right.ids.copy(), right.log_probs.copy()
        ids[row, position], log_probs[row, position] = token, log_probs[row, position] + log_prob
        return decode_error(reference, features, Decoded(ids, log_probs), WORDS)

    first = int(right.ids[2, 0])
    assert error(2, 0, (first + 1) % 300 + 4) > 1e-3
    assert error(2, 0, first, log_prob=0.01) == pytest.approx(0.01, rel=1e-3)
    assert error(2, 1, WORDS.pad_id) == np.inf


def scaled(name: str, factor: float) -> Callable[[ModelProto], ModelProto]:
    """Multiplies an initialiser whose name ends so."""

    def spoil(model: ModelProto) -> ModelProto:
        (tensor,) = (tensor for tensor in model.graph.initializer if tensor.name.endswith(name))
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * np.float32(factor), tensor.name))
        return model

    return spoil


def reversed_selection(model: ModelProto) -> ModelProto:
    (select,) = (node for node in model.graph.node if node.op_type == "TopK")
    select.attribute.append(helper.make_attribute("largest", 0))
    return model


def in_step(
    name: str, spoil: Callable[[ModelProto], ModelProto]
) -> Callable[[dict[str, ModelProto]], dict[str, ModelProto]]:
    """Spoils one of the fused steps."""
    return lambda steps: {**steps, name: spoil(steps[name])}


@pytest.mark.parametrize(
    ("function", "spoil", "named"),
    [
        ("encoder_graph", scaled("mean", 1.01), "encoder, photographs"),
        ("init_graph", scaled("initial.weight", 1.001), "decoder_init, random features"),
        ("step_graph", scaled("output.weight", 1.001), "decoder_step, random states"),
        ("search_graphs", in_step("search_step", reversed_selection), "search_step, one bias"),
        ("search_graphs", in_step("search_step", reversed_selection), "greedy decode, engine on features"),
        ("search_graphs", in_step("sample_step", scaled("output.bias", 1.5)), "sample_step, bias per row"),
    ],
)
def test_a_wrong_graph_fails_by_name_and_leaves_nothing(
    quick: pytest.MonkeyPatch,
    run: Path,
    tmp_path: Path,
    function: str,
    spoil: Callable[[Any], Any],
    named: str,
) -> None:
    right = getattr(modules, function)
    quick.setattr(modules, function, lambda *made: spoil(right(*made)))
    with pytest.raises(ParityError, match="nothing was written") as caught:
        exporting.export_bundle(run, tmp_path / "bundle")
    assert named in str(caught.value).splitlines()[0]
    assert list(tmp_path.iterdir()) == []


def test_nan_is_beyond_every_tolerance() -> None:
    check = Check("encoder, random pixels", float("nan"), 1.0, (1,))
    assert not check.passed
    assert "BEYOND TOLERANCE" in table([check, dataclasses.replace(check, error=0.5)])


def test_drawn_pictures_are_the_same_every_time_and_all_different() -> None:
    one, other = draw_pictures(), draw_pictures()
    assert all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))  # type: ignore[arg-type]
    assert len({np.asarray(picture).tobytes() for picture in one}) == len(one)


def test_a_named_folder_without_pictures_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="contains no images"):
        find_pictures(tmp_path)
