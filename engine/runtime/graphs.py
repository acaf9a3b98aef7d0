"""The graphs of a bundle, ready to run: images to features, features to the steps of a decode."""

import threading
import warnings
from typing import Any

import numpy as np

from engine.bundle import Bundle
from engine.errors import EngineError, ProviderError
from engine.runtime.options import RuntimeOptions
from engine.runtime.providers import AUTO_ORDER, PROVIDERS, Provider, find_provider, is_available, onnxruntime
from engine.runtime.sessions import open_session

CPU_IMAGES = 8  # of one encoder run on a CPU: 32 are no faster and take three times the memory


class Graphs:
    """The sessions of one bundle on one provider; each is opened when it is first needed, and shared by threads."""

    def __init__(self, bundle: Bundle, provider: Provider, precision: str, options: RuntimeOptions) -> None:
        self.bundle = bundle
        self.provider = provider
        self.precision = precision
        self.options = options
        self.device = (provider.device, options.device_id if provider.device != "cpu" else 0)
        self._sessions: dict[str, Any] = {}
        self._opening = threading.Lock()

    @classmethod
    def open(cls, bundle: Bundle, name: str, precision: str, options: RuntimeOptions) -> "Graphs":
        """Opens the encoder on the provider of a name, or on the first of AUTO_ORDER that runs here for "auto".

        Raises ProviderError.
        """
        names = [auto for auto in AUTO_ORDER if is_available(PROVIDERS[auto])] if name == "auto" else [name]
        for candidate in names:
            try:
                graphs = cls(bundle, find_provider(candidate), precision, options)
                graphs.session("encoder")  # a provider that cannot run says so now
            except ProviderError as error:
                if candidate == names[-1]:
                    raise
                warnings.warn(f"{error}; going on to the next provider", RuntimeWarning, stacklevel=4)
            else:
                return graphs
        raise ProviderError("no provider runs here: ONNX Runtime offers not even its own cpu")

    def session(self, name: str) -> Any:
        """Returns the onnxruntime.InferenceSession of a graph."""
        with self._opening:
            if name not in self._sessions:
                graph = self.bundle.graph(name, self.precision)
                self._sessions[name] = open_session(self.bundle.path, graph, self.provider, self.options)
        return self._sessions[name]

    def encode(self, pixels: np.ndarray) -> np.ndarray:
        """Returns float32 (batch, feature_size) for uint8 pixels (batch, height, width, 3)."""
        features = np.empty((len(pixels), self.bundle.manifest.feature_size), np.float32)
        session = self.session("encoder")
        at_once = CPU_IMAGES if self.provider.name in ("cpu", "openvino") else len(pixels)
        for i in range(0, len(pixels), at_once):
            binding = session.io_binding()
            binding.bind_cpu_input("pixels", np.ascontiguousarray(pixels[i : i + at_once]))
            _bind_host_output(binding, "features", features[i : i + at_once])
            session.run_with_iobinding(binding)
        return features

    def start(self, features: np.ndarray) -> "Steps":
        """Begins the decode of a batch: features float32 (batch, feature_size)."""
        return Steps(self, np.ascontiguousarray(features, np.float32))


class Steps:
    """One decode of one batch, a StepModel: hidden and cell stay on the provider's device.

    Two state slots take turns, so that no run reads and writes the same memory.
    """

    def __init__(self, graphs: Graphs, features: np.ndarray) -> None:
        self.images = len(features)
        self._provider = graphs.provider.name
        units = graphs.bundle.manifest.units
        self._state, self._next = _State(units, graphs.device), _State(units, graphs.device)
        self._session = graphs.session("search_step")
        self._binding = self._session.io_binding()
        self._ids = np.empty(0, np.int64)
        self._log_probs = np.empty(0, np.float32)
        session = graphs.session("decoder_init")
        binding = session.io_binding()
        binding.bind_cpu_input("features", features)
        self._state.reserve(self.images)
        self._state.bind_outputs(binding, "hidden", "cell")
        session.run_with_iobinding(binding)

    def step(
        self, token_ids: np.ndarray, parent_rows: np.ndarray, bias: np.ndarray, k: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Feeds a token to each row: see StepModel. The returned arrays are overwritten by the next step."""
        rows = len(token_ids)
        if rows * k > self._ids.size:
            self._ids, self._log_probs = np.empty(rows * k, np.int64), np.empty(rows * k, np.float32)
        ids = self._ids[: rows * k].reshape(rows, k)
        log_probs = self._log_probs[: rows * k].reshape(rows, k)
        self._next.reserve(rows)
        binding = self._binding
        binding.bind_cpu_input("token_ids", np.ascontiguousarray(token_ids))
        binding.bind_cpu_input("parent_rows", np.ascontiguousarray(parent_rows))
        binding.bind_cpu_input("bias", bias)
        binding.bind_cpu_input("k", np.array([k], np.int64))
        self._state.bind_inputs(binding)
        self._next.bind_outputs(binding, "next_hidden", "next_cell")
        _bind_host_output(binding, "ids", ids)
        _bind_host_output(binding, "log_probs", log_probs)
        self._session.run_with_iobinding(binding)
        self._state, self._next = self._next, self._state
        if np.isnan(log_probs[:, 0]).any():  # where the best is no number, none of its row is
            raise EngineError(
                f"the model computed no numbers (NaN) on provider {self._provider!r}: its features are no numbers, or "
                "the provider or precision is broken here; try provider='cpu'"
            )
        return ids, log_probs


class _State:
    """Hidden and cell of some rows in device memory; grows, but never shrinks."""

    def __init__(self, units: int, device: tuple[str, int]) -> None:
        self._units = units
        self._device = device
        self._capacity = 0
        self._rows = 0
        self._memory: tuple[Any, ...] = ()  # hidden, cell as onnxruntime.OrtValue

    def reserve(self, rows: int) -> None:
        if rows > self._capacity:
            allocate = onnxruntime().OrtValue.ortvalue_from_shape_and_type
            shape = [rows, self._units]
            self._memory = tuple(allocate(shape, np.float32, *self._device) for _ in range(2))
            self._capacity = rows
        self._rows = rows

    def bind_inputs(self, binding: Any) -> None:
        for name, memory in zip(("hidden", "cell"), self._memory, strict=True):
            binding.bind_input(name, *self._device, np.float32, [self._rows, self._units], memory.data_ptr())

    def bind_outputs(self, binding: Any, *names: str) -> None:
        for name, memory in zip(names, self._memory, strict=True):
            binding.bind_output(name, *self._device, np.float32, [self._rows, self._units], memory.data_ptr())


def _bind_host_output(binding: Any, name: str, array: np.ndarray) -> None:
    binding.bind_output(name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)
