"""The count of operations is what one counts by hand."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

from benchmarks.gpu.operations import operations

VALUE, FLOAT = helper.make_tensor_value_info, TensorProto.FLOAT


def save(path: Path, node: onnx.NodeProto, ends: list[onnx.ValueInfoProto], weights: tuple[int, ...]) -> Path:
    tensor = helper.make_tensor("w", FLOAT, weights, bytes(4 * int(np.prod(weights))), raw=True)
    graph = helper.make_graph([node], "made", ends[:1], ends[1:], [tensor])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)]), path)
    return path


def test_a_grouped_convolution(tmp_path: Path) -> None:
    node = helper.make_node("Conv", ["x", "w"], ["y"], group=2, strides=[2, 2], pads=[1, 1, 1, 1])
    ends = [VALUE("x", FLOAT, ["batch", 4, 8, 8]), VALUE("y", FLOAT, ["batch", 6, 4, 4])]
    found = operations(save(tmp_path / "m.onnx", node, ends, (6, 2, 3, 3)), {"batch": 3})
    assert found == 2 * 3 * (6 * 4 * 4) * (2 * 3 * 3)


def test_a_matrix_product(tmp_path: Path) -> None:
    node = helper.make_node("Gemm", ["x", "w"], ["y"])
    ends = [VALUE("x", FLOAT, ["rows", 5]), VALUE("y", FLOAT, ["rows", 7])]
    assert operations(save(tmp_path / "m.onnx", node, ends, (5, 7)), {"rows": 10}) == 2 * 10 * 5 * 7
