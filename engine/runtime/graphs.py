"""The graphs of a bundle, ready to run: images to features, features to the steps of a decode."""

import threading
import warnings
from typing import Any

import numpy as np

from engine.bundle import Bundle
from engine.errors import ProviderError
from engine.runtime.options import RuntimeOptions
from engine.runtime.providers import AUTO_ORDER, PROVIDERS, Provider, find_provider, is_available
from engine.runtime.sessions import open_session
from engine.runtime.steps import Steps

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

    def start(self, features: np.ndarray) -> Steps:
        """Begins the decode of a batch: features float32 (batch, feature_size)."""
        return Steps(self, np.ascontiguousarray(features, np.float32))


def _bind_host_output(binding: Any, name: str, array: np.ndarray) -> None:
    binding.bind_output(name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)
