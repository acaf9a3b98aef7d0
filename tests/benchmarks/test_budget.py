"""The budget counts what a hand counts."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from benchmarks.budget import cost, main

VALUE, FLOAT = helper.make_tensor_value_info, TensorProto.FLOAT


def save(path: Path, nodes: list[onnx.NodeProto], ends: list[onnx.ValueInfoProto], **weights: np.ndarray) -> Path:
    tensors = [numpy_helper.from_array(array.astype(np.float32), name) for name, array in weights.items()]
    model = helper.make_model(helper.make_graph(nodes, "made", ends[:1], ends[1:], tensors))
    model.opset_import[0].version = 18
    onnx.save(model, path)
    return path


def test_a_grouped_convolution(tmp_path: Path) -> None:
    node = helper.make_node("Conv", ["x", "w"], ["y"], group=2, strides=[2, 2], pads=[1, 1, 1, 1])
    ends = [VALUE("x", FLOAT, ["batch", 4, 8, 8]), VALUE("y", FLOAT, ["batch", 6, 4, 4])]
    found = cost(save(tmp_path / "m.onnx", [node], ends, w=np.ones((6, 2, 3, 3))), {"batch": 3})
    assert found.operations == 2 * 3 * (6 * 4 * 4) * (2 * 3 * 3)
    assert found.weights == 4 * 6 * 2 * 3 * 3


def test_a_matrix_product(tmp_path: Path) -> None:
    node = helper.make_node("Gemm", ["x", "w"], ["y"])
    ends = [VALUE("x", FLOAT, ["rows", 5]), VALUE("y", FLOAT, ["rows", 7])]
    assert cost(save(tmp_path / "m.onnx", [node], ends, w=np.ones((5, 7))), {"rows": 10}).operations == 2 * 10 * 5 * 7


def test_the_table_names_each_graph(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    table = capsys.readouterr().out
    assert all(name in table for name in ("encoder", "decoder_init", "decoder_step"))
