"""A frozen network as a fast function of uint8 pixels: ONNX Runtime on a CPU, PyTorch elsewhere.

Knows nothing of images, files or training. Eager PyTorch is a third as fast on a CPU.
"""

import copy
import warnings
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

TOLERANCE = 1e-4
"""Largest allowed difference from PyTorch, relative to the largest output (at least 1)."""

COMPARED = 4
"""Images on which the two are compared before ONNX Runtime is used."""

Function = Callable[[np.ndarray], np.ndarray]


def eager(network: nn.Module, device: torch.device) -> Function:
    """Returns the network as a function of uint8 pixels (batch, height, width, 3), computed by PyTorch."""

    def run(pixels: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            outputs: Tensor = network(torch.from_numpy(pixels).to(device))
        return outputs.cpu().numpy()

    return run


def compiled(network: nn.Module, pixels: np.ndarray) -> Function:
    """Returns a network on the CPU as a function of up to len(pixels) images, run by ONNX Runtime.

    Compares both on some of `pixels`, uint8 (batch, height, width, 3). If ONNX Runtime is missing, cannot run the
    network or gives other results, prints one sentence and returns the result of `eager`.
    """
    slow = eager(network, torch.device("cpu"))
    try:
        fast = _session(network, pixels)
        expected, found = slow(pixels[:COMPARED]), fast(pixels[:COMPARED])
        distance = np.abs(found - expected).max() / max(1.0, np.abs(expected).max())
        if distance <= TOLERANCE:
            return fast
        why = f"ONNX Runtime differs from PyTorch by {distance:.1e}"
    except ImportError as error:
        why = f"the package {error.name or error} is not installed"
    except Exception as error:  # exporters and runtimes raise errors of many kinds
        why = f"ONNX Runtime cannot run it: {(str(error).strip() or type(error).__name__).splitlines()[0]}"
    print(f"features are computed by PyTorch, which takes about three times as long ({why})", flush=True)
    return slow


def _session(network: nn.Module, pixels: np.ndarray) -> Function:
    """Traces a network for exactly len(pixels) images and opens it; fewer images are padded."""
    import onnxruntime  # not needed for training on a GPU

    plain = copy.deepcopy(network).to(memory_format=torch.contiguous_format)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.onnx warns about itself
        program = torch.onnx.export(plain, (torch.from_numpy(pixels),), dynamo=True, verbose=False)
    assert program is not None
    options, size = onnxruntime.SessionOptions(), len(pixels)
    options.intra_op_num_threads, options.log_severity_level = torch.get_num_threads(), 3
    content = program.model_proto.SerializeToString()
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name

    def run(pixels: np.ndarray) -> np.ndarray:
        padded = np.concatenate([pixels, np.zeros((size - len(pixels), *pixels.shape[1:]), np.uint8)])
        outputs: np.ndarray = session.run(None, {name: padded})[0]
        return outputs[: len(pixels)]

    return run
