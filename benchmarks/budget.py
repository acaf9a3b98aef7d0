"""The budget of one image: operations and bytes of each graph, and the least time they need on this machine.

`python -m benchmarks.budget` counts multiplications and bytes in the bundle's graphs and divides them by the rates that
the machine reaches in a large matrix product and in a copy. It does not run the engine.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from onnx.shape_inference import infer_shapes

from engine.bundle.bundle import Bundle

SIDE = 2048  # of the matrix product that measures the machine's peak
SMALL_SIDE = 256
COPIED = 1 << 28  # bytes, far beyond any cache
ROUNDS = 5


class Machine(NamedTuple):
    """What the machine reaches, all cores together."""

    fp32: float  # operations a second; a multiplication and an addition are two
    bfloat16: float
    copy: float  # bytes a second, read and written counted


class Cost(NamedTuple):
    """What one run of a graph has to do."""

    operations: float
    weights: float  # bytes
    values: float  # bytes of everything computed in between


def cost(path: Path, sizes: dict[str, int]) -> Cost:
    """Counts what a graph does with its dynamic extents of the given sizes."""
    model = onnx.load(path)
    graph = model.graph
    for value in (*graph.input, *graph.output):
        for extent in value.type.tensor_type.shape.dim:
            if extent.dim_param in sizes:
                extent.dim_value = sizes[extent.dim_param]
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    model = infer_shapes(model, data_prop=True)
    shapes = {
        value.name: [extent.dim_value for extent in value.type.tensor_type.shape.dim]
        for value in (*model.graph.value_info, *model.graph.input, *model.graph.output)
    }
    shapes |= {name: list(array.shape) for name, array in weights.items()}
    operations = sum(2 * _products(node, shapes) for node in model.graph.node)
    values = sum(4 * float(np.prod(shapes.get(name, [0]))) for node in model.graph.node for name in node.output)
    return Cost(operations, float(sum(array.nbytes for array in weights.values())), values)


def _products(node: onnx.NodeProto, shapes: dict[str, list[int]]) -> float:
    """Returns how many multiplications with weights a node does."""
    if node.op_type == "Conv":
        return float(np.prod(shapes[node.output[0]]) * np.prod(shapes[node.input[1]][1:]))
    if node.op_type in ("Gemm", "MatMul"):
        attributes = {attribute.name: attribute.i for attribute in node.attribute}
        left = shapes[node.input[0]]
        inner = left[0] if attributes.get("transA") else left[-1]
        return float(np.prod(shapes[node.output[0]]) * inner)
    if node.op_type == "LSTM":
        rows = shapes[node.input[0]][0] * shapes[node.input[0]][1]
        return float(rows * sum(np.prod(shapes[name]) for name in node.input[1:3]))
    return 0.0


def measure() -> Machine:
    """Times matrix products and a copy; the best of some rounds each."""
    fp32, bfloat16 = _product(torch.float32, SIDE), _product(torch.bfloat16, SMALL_SIDE)
    if bfloat16 > fp32 / 10:  # else the processor knows none, and a large product would take minutes
        bfloat16 = _product(torch.bfloat16, SIDE)
    source, target = np.ones(COPIED, np.uint8), np.empty(COPIED, np.uint8)
    return Machine(fp32, bfloat16, 2 * COPIED / _shortest(lambda: np.copyto(target, source)))


def _product(dtype: torch.dtype, side: int) -> float:
    left, right = torch.randn(2, side, side).to(dtype)
    return 2 * side**3 / _shortest(lambda: left @ right)


def _shortest(work: Callable[[], object]) -> float:
    times = []
    for _ in range(ROUNDS + 1):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times[1:])


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.budget", description=__doc__.splitlines()[0])
    parser.add_argument("--bundle", type=Path, help="the bundle to analyse (default: the one that ships)")
    bundle = Bundle.load(parser.parse_args(arguments).bundle)
    machine = measure()
    print(
        f"this machine: {machine.fp32 / 1e9:.0f} GFLOP/s in fp32, {machine.bfloat16 / 1e9:.0f} in bfloat16, "
        f"{machine.copy / 1e9:.1f} GB/s copied\n\n"
        "| graph | run | MFLOP | weights MB | values MB | arithmetic ms | weights from memory ms |\n"
        "|---|---|---|---|---|---|---|"
    )
    for name, run, sizes in (
        ("encoder", "1 image", {"batch": 1}),
        ("decoder_init", "1 image", {"batch": 1}),
        *(("decoder_step", f"{rows} rows", {"rows": rows}) for rows in (1, 32, 96, 160)),
    ):
        found = cost(bundle.path / bundle.graph(name).file, sizes)
        print(
            f"| {name} | {run} | {found.operations / 1e6:,.1f} | {found.weights / 1e6:.1f} | {found.values / 1e6:.1f} "
            f"| {1000 * found.operations / machine.fp32:.2f} | {2000 * found.weights / machine.copy:.2f} |"
        )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
