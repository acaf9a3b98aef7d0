"""A stand-in for Triton's Python backend: its module for models, and requests that keep their answers."""

import json
import threading
import types
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

FINAL = 1
PATIENCE = 60.0  # seconds until a test gives up


class Error(Exception):
    """Stands for pb_utils.TritonError."""

    INTERNAL, INVALID_ARG, UNAVAILABLE, CANCELLED = range(4)

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


class Request:
    """A request and its own response sender."""

    def __init__(self, images: Sequence[bytes], parameters: dict[str, Any] | None = None, timeout: int = 0) -> None:
        self.images = np.array([[image] for image in images], np.object_)
        self.written, self.microseconds = json.dumps(parameters or {}), timeout
        self.gone = False
        self.answers: list[tuple[Any, int]] = []
        self.answered = threading.Event()

    def parameters(self) -> str:
        return self.written

    def timeout(self) -> int:
        return self.microseconds

    def get_response_sender(self) -> "Request":
        return self

    def is_cancelled(self) -> bool:
        return self.gone

    def send(self, response: Any, flags: int) -> None:
        self.answers.append((response, flags))
        self.answered.set()

    def outputs(self) -> dict[str, np.ndarray]:
        """Returns the one response's outputs, or raises its error."""
        assert self.answered.wait(PATIENCE)
        ((response, flags),) = self.answers
        assert flags == FINAL
        if response.error is not None:
            raise response.error
        return {tensor.name: tensor.values for tensor in response.tensors}

    def error(self) -> Error:
        with pytest.raises(Error) as caught:
            self.outputs()
        return caught.value


def stand_in() -> Any:
    """Returns a module with the names of triton_python_backend_utils that the model uses."""
    module: Any = types.ModuleType("triton_python_backend_utils")
    module.get_input_tensor_by_name = lambda request, name: types.SimpleNamespace(
        as_numpy=lambda: {"image": request.images}[name]
    )
    module.Tensor = lambda name, values: types.SimpleNamespace(name=name, values=values)
    module.TritonError = Error
    module.logged = []
    module.Logger = types.SimpleNamespace(log_error=module.logged.append)
    module.TRITONSERVER_RESPONSE_COMPLETE_FINAL = FINAL

    def response(tensors: Sequence[Any] = (), error: Error | None = None) -> Any:
        return types.SimpleNamespace(tensors=tensors, error=error)

    module.InferenceResponse = response
    return module
