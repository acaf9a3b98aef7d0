"""Traces PyTorch modules to ONNX graphs. Owns the opset, the tensor names and which metadata files may contain.

Knows nothing of captions, bundles or weight files.
"""

import inspect
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import onnxscript  # noqa: F401 (torch.onnx imports it, but late)
import torch
from onnx import ModelProto
from torch import Tensor, nn

OPSET = 18
"""The opset that torch.onnx writes without conversion, and that ONNX Runtime's CPU, CUDA, TensorRT and OpenVINO
providers all accept."""

PRODUCER = "captioning-engine"


def trace(module: nn.Module, inputs: Mapping[str, Tensor], outputs: Sequence[str], dynamic: str) -> ModelProto:
    """Exports a module in eval mode whose tensors all share one dynamic first dimension, named `dynamic`.

    `inputs` are examples in the order of forward's parameters, of any size but 1 along that dimension (torch
    treats 1 as a constant). The result has exactly these inputs and outputs.
    """
    rows = torch.export.Dim(dynamic, min=1, max=1 << 20)
    shapes: list[Any] = [{0: rows} for _ in inputs]
    parameters = inspect.signature(module.forward).parameters.values()
    if any(parameter.kind is parameter.VAR_POSITIONAL for parameter in parameters):
        named = len(parameters) - 1
        shapes = [*shapes[:named], tuple(shapes[named:])]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.onnx warns about itself
        program = torch.onnx.export(
            module.eval(),
            tuple(inputs.values()),
            dynamo=True,
            opset_version=OPSET,
            input_names=list(inputs),
            output_names=list(outputs),
            dynamic_shapes=tuple(shapes),
            verbose=False,
        )
    assert program is not None
    model: ModelProto = program.model_proto
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = dynamic
    return clean(model)


def clean(model: ModelProto) -> ModelProto:
    """Removes metadata from the model in place, and returns it.

    It removes stack traces with paths of this machine, notes of the exporter, and the shapes of inner values: every
    runtime infers those, and they may be wrong after graph changes.
    """
    model.producer_name, model.producer_version = PRODUCER, ""
    del model.graph.value_info[:]
    _strip(model)
    return model


def _strip(message: Any) -> None:
    """Clears doc_string and metadata_props in a protobuf message and everything inside it, initialisers included."""
    for name in ("doc_string", "metadata_props"):
        if name in message.DESCRIPTOR.fields_by_name:
            message.ClearField(name)
    for field, value in message.ListFields():
        if field.message_type is not None:
            for part in value if hasattr(value, "extend") else [value]:
                _strip(part)
