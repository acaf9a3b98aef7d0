"""INT8: what is quantised computes what it should, on graphs small enough to know the answer."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from export.calibration import observe
from export.graphs import OPSET
from export.pixel_input import cut_head, join_head
from export.pooling import pools_to_convolutions
from export.quantise import Observed, Prepared, prepare, quantise, quantised_nodes
from export.rounding import NARROW, round_weights

SIZE = 12
MEAN, STD = (123.0, 116.5, 104.0), (58.0, 57.0, 60.0)
RANDOM = np.random.default_rng(3)


def weights(*shape: int) -> np.ndarray:
    drawn: np.ndarray = RANDOM.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))
    return drawn.astype(np.float32)


def encoder(
    mean: tuple[float, ...], std: tuple[float, ...], pads: int = 0, clip: tuple[float, float] = (0, 6)
) -> ModelProto:
    """Normalisation, a padded or unpadded convolution, ReLU6, a depthwise and a pointwise one, a sum, a mean."""
    constants = {
        "mean": np.array(mean, np.float32).reshape(-1, 1, 1),
        "std": np.array(std, np.float32).reshape(-1, 1, 1),
        "low": np.float32(clip[0]),
        "high": np.float32(clip[1]),
        "stem": weights(8, 3, 3, 3),
        "stem_bias": weights(8, 1).ravel(),
        "deep": weights(8, 1, 3, 3),
        "point": weights(8, 8, 1, 1),
        "axes": np.array([2, 3]),
    }
    node = helper.make_node
    nodes = [
        node("Transpose", ["pixels"], ["planes"], "transpose", perm=[0, 3, 1, 2]),
        node("Cast", ["planes"], ["floats"], "cast", to=TensorProto.FLOAT),
        node("Sub", ["floats", "mean"], ["centred"], "sub"),
        node("Div", ["centred", "std"], ["normal"], "div"),
        node("Conv", ["normal", "stem", "stem_bias"], ["a"], "first", pads=[pads] * 4),
        node("Clip", ["a", "low", "high"], ["b"], "clip"),
        node("Conv", ["b", "deep"], ["c"], "second", pads=[1] * 4, group=8),
        node("Relu", ["c"], ["d"], "relu"),
        node("Conv", ["d", "point"], ["e"], "third"),
        node("Add", ["e", "b"], ["f"], "add"),
        node("Concat", ["f", "b"], ["g"], "concat", axis=1),
        node("ReduceMean", ["g", "axes"], ["features"], "mean", keepdims=0),
    ]
    graph = helper.make_graph(
        nodes,
        "encoder",
        [helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["batch", SIZE, SIZE, 3])],
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["batch", 16])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10)


def photographs(count: int = 24) -> np.ndarray:
    coarse = RANDOM.integers(0, 256, (count, 4, 4, 3), dtype=np.uint8)
    return coarse.repeat(3, axis=1).repeat(3, axis=2)


def run(model: ModelProto, feed: dict[str, np.ndarray], output: str = "features") -> np.ndarray:
    settings = ort.SessionOptions()
    settings.log_severity_level = 3
    session = ort.InferenceSession(model.SerializeToString(), settings, providers=["CPUExecutionProvider"])
    found: np.ndarray = session.run([output], feed)[0]
    return found


def int8(model: ModelProto, pixels: np.ndarray, narrow: bool = True) -> ModelProto:
    prepared = prepare(model)
    return quantise(prepared, observe(prepared, pixels), narrow=narrow)


def operations(model: ModelProto) -> Counter[str]:
    return Counter(node.op_type for node in model.graph.node)


@pytest.mark.parametrize(
    ("mean", "std", "pads"),
    [((127.0,) * 3, (128.0,) * 3, 1), ((127.5,) * 3, (127.5,) * 3, 0), (MEAN, STD, 0)],
    ids=["whole mean, padded", "half mean", "a mean for each channel"],
)
def test_cutting_the_head_off_changes_nothing(mean: tuple[float, ...], std: tuple[float, ...], pads: int) -> None:
    model, pixels = encoder(mean, std, pads), photographs()
    prepared = prepare(model)
    assert prepared.planes is not None
    np.testing.assert_allclose(run(prepared.model, prepared.feed(pixels)), run(model, {"pixels": pixels}), atol=2e-5)
    join_head(prepared.model, prepared.planes)  # nothing is quantised here: the pixels are dequantised, and no more
    np.testing.assert_allclose(run(prepared.model, {"pixels": pixels}), run(model, {"pixels": pixels}), atol=2e-5)


def test_padding_between_means_of_channels_keeps_the_normalisation() -> None:
    model = encoder(MEAN, STD, pads=1)
    assert cut_head(model) is None, "zeros beside the pixels would be another grey"
    pixels = photographs()
    made = int8(model, pixels)
    assert operations(made)["Sub"] == 1
    exact = run(model, {"pixels": pixels})
    assert np.linalg.norm(run(made, {"pixels": pixels}) - exact) < 0.05 * np.linalg.norm(exact)


def test_pixels_are_not_quantised_twice() -> None:
    made = int8(encoder((127.0,) * 3, (128.0,) * 3, pads=1), photographs())
    (transpose,) = (node for node in made.graph.node if "pixels" in node.input)
    readers = [node for node in made.graph.node if transpose.output[0] in node.input]
    assert (transpose.op_type, [node.op_type for node in readers]) == ("Transpose", ["DequantizeLinear"])
    values = {tensor.name: numpy_helper.to_array(tensor) for tensor in made.graph.initializer}
    scale, zero_point = (values[name] for name in readers[0].input[1:])
    assert zero_point.dtype == np.uint8
    assert (float(scale), int(zero_point)) == (1 / 128, 127)
    assert not operations(made).keys() & {"Cast", "Sub", "Div"}


@pytest.mark.parametrize("limits", [(0, 2), (-1, 1), (0, 0.25)])
def test_a_quantised_clip_equals_clip(limits: tuple[float, float]) -> None:
    pixels = photographs()
    prepared = prepare(encoder((127.0,) * 3, (32.0,) * 3, clip=limits))
    observed = observe(prepared, pixels)
    made = quantise(prepared, observed)
    assert not operations(made).keys() & {"Clip", "Relu"}
    round_weights(prepared.model, ["first"], observed.means)  # so that only activations differ
    (dequantised,) = (n for n in made.graph.node if n.op_type == "DequantizeLinear" and n.output[0].startswith("b_"))
    for model, name in ((prepared.model, "b"), (made, dequantised.output[0])):
        model.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))
    exact, found = run(prepared.model, prepared.feed(pixels), "b"), run(made, {"pixels": pixels}, dequantised.output[0])
    assert (exact.min(), exact.max()) == (limits[0], pytest.approx(limits[1])), "the test needs values at both limits"
    step = (limits[1] - limits[0]) / 255
    assert np.abs(found - exact).max() <= step  # half of it rounding, the rest the zero point and the bias


def test_a_clip_to_a_range_without_zero_is_left_alone() -> None:
    model, pixels = encoder((127.0,) * 3, (32.0,) * 3, clip=(0.5, 2)), photographs()
    assert "clip" not in quantised_nodes(model.graph)
    made = int8(model, pixels)
    assert operations(made)["Clip"] == 1
    exact = run(model, {"pixels": pixels})
    assert np.linalg.norm(run(made, {"pixels": pixels}) - exact) < 0.1 * np.linalg.norm(exact)


def test_no_floats_pass_between_convolutions(tmp_path: Path) -> None:
    made = int8(encoder((127.0,) * 3, (128.0,) * 3, pads=1), photographs())
    settings = ort.SessionOptions()
    settings.log_severity_level, settings.optimized_model_filepath = 3, str(tmp_path / "optimised.onnx")
    ort.InferenceSession(made.SerializeToString(), settings, providers=["CPUExecutionProvider"])
    left = operations(onnx.load(tmp_path / "optimised.onnx"))
    assert left["QLinearConv"] == 3
    assert left["QuantizeLinear"] == 0
    assert left["DequantizeLinear"] == 1, "before the mean"
    assert left.keys() >= {"QLinearAdd", "QLinearConcat"}


def test_narrow_weights_cannot_overflow_sixteen_bits_and_depthwise_ones_are_wide() -> None:
    made = int8(encoder((127.0,) * 3, (128.0,) * 3, pads=1), photographs())
    largest = {
        tensor.name.removesuffix("_weight_quantized"): int(np.abs(numpy_helper.to_array(tensor).astype(int)).max())
        for tensor in made.graph.initializer
        if tensor.name.endswith("_weight_quantized")
    }
    assert largest == {"first": NARROW, "second": 127, "third": NARROW}
    assert 2 * 255 * NARROW < 1 << 15


def test_corrected_biases_keep_the_mean_of_every_channel() -> None:
    prepared = prepare(encoder((127.0,) * 3, (32.0,) * 3))
    pixels = photographs()
    observed = observe(prepared, pixels)
    rough = ModelProto()
    rough.CopyFrom(prepared.model)
    round_weights(rough, ["third"], observed.means)
    plain = ModelProto()
    plain.CopyFrom(prepared.model)
    round_weights(plain, ["third"], {name: np.zeros_like(mean) for name, mean in observed.means.items()})

    def means(model: ModelProto) -> np.ndarray:
        model.graph.output.append(helper.make_tensor_value_info("e", TensorProto.FLOAT, None))
        found: np.ndarray = run(model, prepared.feed(pixels), "e").mean(axis=(0, 2, 3))
        return found

    exact, corrected, shifted = means(prepared.model), means(rough), means(plain)
    assert np.abs(corrected - exact).max() < 1e-6
    assert np.abs(shifted - exact).max() > 1e-4, "the test needs errors to correct"


def test_observed_ranges_and_means_are_those_of_the_photographs() -> None:
    prepared, pixels = prepare(encoder(MEAN, STD)), photographs(7)  # 7: the last batch is smaller
    observed = observe(prepared, pixels)
    prepared.model.graph.output.append(helper.make_tensor_value_info("b", TensorProto.FLOAT, None))
    values = run(prepared.model, prepared.feed(pixels), "b")
    assert observed.ranges["b"] == pytest.approx((values.min(), values.max()))
    np.testing.assert_allclose(observed.means["b"], values.mean(axis=(0, 2, 3)), rtol=1e-5)


def test_quantising_twice_gives_the_same_bytes() -> None:
    model, pixels = encoder((127.0,) * 3, (128.0,) * 3), photographs()
    one, other = (int8(model, pixels).SerializeToString(deterministic=True) for _ in range(2))
    assert one == other


def test_a_batch_is_its_images_one_by_one() -> None:
    made, pixels = int8(encoder((127.0,) * 3, (128.0,) * 3), photographs()), photographs(5)
    alone = np.concatenate([run(made, {"pixels": pixels[i : i + 1]}) for i in range(5)])
    np.testing.assert_allclose(run(made, {"pixels": pixels}), alone, atol=1e-6)


def test_what_no_convolution_feeds_is_left_in_fp32() -> None:
    node = helper.make_node
    graph = helper.make_graph([node("Relu", ["x"], ["y"], "relu"), node("Add", ["y", "x"], ["z"], "add")], "g", [], [])
    assert quantised_nodes(graph) == []


def test_an_encoder_whose_pixels_are_read_twice_keeps_its_head() -> None:
    model = encoder((127.0,) * 3, (128.0,) * 3)
    model.graph.node.append(helper.make_node("Shape", ["pixels"], ["sizes"], "shape"))
    before = model.SerializeToString()
    assert cut_head(model) is None
    assert model.SerializeToString() == before
    assert isinstance(prepare(model), Prepared)
    assert isinstance(observe(prepare(model), photographs(2)), Observed)


def pooled(**attributes: Any) -> ModelProto:
    graph = helper.make_graph(
        [
            helper.make_node("AveragePool", ["x"], ["y"], "pool", kernel_shape=[3, 3], **attributes),
            helper.make_node("ReduceMean", ["y", "axes"], ["features"], "mean", keepdims=0),
        ],
        "pooled",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 8, SIZE, SIZE])],
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["batch", 8])],
        [numpy_helper.from_array(np.array([2, 3]), "axes")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10)


@pytest.mark.parametrize(
    ("attributes", "becomes"),
    [
        ({"pads": [1] * 4, "count_include_pad": 1}, "Conv"),
        ({"strides": [2, 2]}, "Conv"),
        ({"pads": [1] * 4}, "AveragePool"),
        ({"strides": [2, 2], "ceil_mode": 1}, "AveragePool"),
    ],
    ids=["padding counts", "no padding", "windows at the edge are smaller", "the last window is smaller"],
)
def test_average_pools_become_convolutions_where_all_windows_are_equal(
    attributes: dict[str, Any], becomes: str
) -> None:
    model = pooled(**attributes)
    x = RANDOM.standard_normal((3, 8, SIZE, SIZE), dtype=np.float32)
    exact = run(model, {"x": x})
    pools_to_convolutions(model)
    assert operations(model)[becomes] == 1
    np.testing.assert_allclose(run(model, {"x": x}), exact, atol=1e-6)
