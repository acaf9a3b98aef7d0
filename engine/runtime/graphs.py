"""The graphs of a bundle, ready to run: images to features, features to the steps of a decode."""

import threading
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from engine.bundle import Bundle
from engine.decoding.model import StepModel
from engine.runtime.device import Device, DeviceFeatures
from engine.runtime.device_encoder import DeviceEncoder
from engine.runtime.encoder import Encoder
from engine.runtime.lanes import Lanes
from engine.runtime.options import RuntimeOptions, cores
from engine.runtime.providers import Provider, find_provider
from engine.runtime.sessions import open_session
from engine.runtime.steps import StepLane, Steps
from engine.selection import Choice

if TYPE_CHECKING:
    from engine.runtime.device_steps import DeviceDecoder


class Graphs:
    """The sessions of one bundle on one provider; each is opened when it is first needed, and shared by threads."""

    def __init__(self, bundle: Bundle, provider: Provider, precision: str, options: RuntimeOptions) -> None:
        self.bundle = bundle
        self.provider = provider
        self.precision = precision
        self.options = options
        self.device = (provider.device, options.device_id if provider.device != "cpu" else 0)
        self.session = _Sessions(bundle, provider, precision, options)
        sizes, image = bundle.manifest, bundle.manifest.image
        self._lane = partial(StepLane, units=sizes.units, device=self.device)
        self._lanes = Lanes(partial(self._lane, self.session))
        self.encoder: Encoder | DeviceEncoder
        self._decoder: DeviceDecoder | None = None
        if provider.device == "cuda":
            from engine.runtime import device_steps

            device = Device(self.session, provider.name, options.device_id, options.cuda_graphs)
            self.encoder = DeviceEncoder(device, (image.height, image.width, 3), sizes.feature_size)
            held = {graph.graph for graph in sizes.graphs}
            self._decoder = device_steps.DeviceDecoder(device, sizes.units, sizes.vocabulary_size, held)
        else:
            lanes = (options.threads or cores()) if provider.name == "cpu" else 0
            self.encoder = Encoder(partial(self.session, "encoder"), sizes.feature_size, lanes=lanes)

    @classmethod
    def open(cls, bundle: Bundle, choice: Choice) -> "Graphs":
        """Opens the encoder on a provider, which says now if it cannot run. Raises ProviderError."""
        graphs = cls(bundle, find_provider(choice.provider), choice.precision, choice.runtime)
        graphs.session("encoder")
        return graphs

    def start(self, features: np.ndarray | DeviceFeatures) -> StepModel:
        """Begins the decode of a batch: features float32 (batch, feature_size)."""
        if self._decoder is not None:
            return self._decoder.start(features)
        return Steps(self._lanes, np.ascontiguousarray(features, np.float32))

    def begin(self, capacity: int) -> StepModel:
        """Begins a decode without images, which are admitted later; capacity: most rows and images at a time.

        On a CPU it leaves most threads to the encoder, which works for the next images meanwhile. With one thread a row
        is computed alike, to the bit, whatever its neighbours.
        """
        if self._decoder is not None:
            return self._decoder.begin(capacity)
        none = np.empty((0, self.bundle.manifest.feature_size), np.float32)
        threads = max(1, self.encoder.lanes // 4) if self.encoder.lanes else 0
        lane = partial(self._lane, partial(self.session, threads=threads))
        return Steps(Lanes(lane), none, capacity=capacity)


class _Sessions:
    """Opens sessions once; refers to nothing that refers to it, so that what is dropped is freed at once."""

    def __init__(self, bundle: Bundle, provider: Provider, precision: str, options: RuntimeOptions) -> None:
        self._bundle = bundle
        self._provider = provider
        self._precision = precision
        self._options = options
        self._opened: dict[tuple[str, int], Any] = {}
        self._opening = threading.Lock()

    def __call__(self, name: str, threads: int = 0) -> Any:
        """Returns the onnxruntime.InferenceSession of a graph; threads: 0 for as many as the options say."""
        key = (name, threads or self._options.threads)
        with self._opening:
            if key not in self._opened:
                graph, options = self._bundle.graph(name, self._precision), replace(self._options, threads=key[1])
                self._opened[key] = open_session(self._bundle.path, graph, self._provider, options)
        return self._opened[key]
