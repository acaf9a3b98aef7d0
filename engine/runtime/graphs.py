"""The graphs of a bundle, ready to run: images to features, features to the steps of a decode."""

import threading
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from engine.bundle.bundle import Bundle
from engine.decoding.step_model import StepModel
from engine.runtime.cuda.device import Device, DeviceFeatures
from engine.runtime.cuda.encoder import DeviceEncoder
from engine.runtime.encoder import Encoder
from engine.runtime.options import RuntimeOptions, cores
from engine.runtime.placement import Placement
from engine.runtime.pool import Pool
from engine.runtime.sessions import open_session
from engine.runtime.steps import StepBuffers, Steps

if TYPE_CHECKING:
    from engine.runtime.cuda.steps import DeviceDecoder


class Graphs:
    """The sessions of one bundle in one placement; each is opened when first needed, and shared by threads."""

    def __init__(self, bundle: Bundle, placement: Placement, precision: str, options: RuntimeOptions) -> None:
        self.bundle = bundle
        self.placement = placement
        self.precision = precision
        self.options = options
        self.session = _Sessions(bundle, placement, precision, options)
        sizes, image = bundle.manifest, bundle.manifest.image
        self._make_buffers = partial(StepBuffers, state=sizes.state, context=sizes.context)
        self._pool = Pool(partial(self._make_buffers, self.session))
        device = Device(self.session, placement.name, options.device_id, options.cuda_graphs)
        self.encoder: Encoder | DeviceEncoder
        self._decoder: DeviceDecoder | None = None
        if placement.encoder.device == "cuda":
            self.encoder = DeviceEncoder(device, (image.height, image.width, 3), sizes.feature_shape)
        else:
            lanes = (options.threads or cores()) if placement.encoder.name == "cpu" else 0
            self.encoder = Encoder(partial(self.session, "encoder"), sizes.feature_shape, lanes=lanes)
        if placement.decoder.device == "cuda":
            from engine.runtime.cuda import steps as cuda_steps  # which most machines never need

            self._decoder = cuda_steps.DeviceDecoder(device, sizes.state, sizes.context, sizes.vocabulary_size)

    @classmethod
    def open(cls, bundle: Bundle, placement: Placement, precision: str, options: RuntimeOptions) -> "Graphs":
        """Opens the encoder now, so that a provider that cannot run fails here. Raises ProviderError."""
        graphs = cls(bundle, placement, precision, options)
        graphs.session("encoder")
        return graphs

    @property
    def on_device(self) -> bool:
        """Whether encoder or decoder runs on a GPU and leaves its results in GPU memory."""
        return any(provider.device != "cpu" for provider in self.placement.providers)

    def for_decoder(self, features: np.ndarray | DeviceFeatures) -> np.ndarray | DeviceFeatures:
        """Returns features in the memory that the decoder reads, so that a batch is copied once, not in parts."""
        return np.asarray(features) if self._decoder is None else features

    def start(self, features: np.ndarray | DeviceFeatures) -> StepModel:
        """Starts the decode of a batch: features float32 (batch, *feature_shape)."""
        if self._decoder is not None:
            return self._decoder.start(features)
        return Steps(self._pool, np.ascontiguousarray(features, np.float32))

    def start_empty(self, capacity: int) -> StepModel:
        """Starts a decode without images, which are admitted later; capacity: most rows and images at a time.

        On a CPU it leaves most threads to the encoder, which is busy with the next images. With one thread, a row's
        result is the same, bit for bit, whichever rows run beside it.
        """
        if self._decoder is not None:
            return self._decoder.start_empty(capacity)
        none = np.empty((0, *self.bundle.manifest.feature_shape), np.float32)
        threads = max(1, self.encoder.lanes // 4) if self.encoder.lanes else 0
        make = partial(self._make_buffers, partial(self.session, threads=threads))
        return Steps(Pool(make), none, capacity=capacity)


class _Sessions:
    """Opens each session once. It is in no reference cycle, so dropping it frees the sessions at once."""

    def __init__(self, bundle: Bundle, placement: Placement, precision: str, options: RuntimeOptions) -> None:
        self._bundle = bundle
        self._placement = placement
        self._precision = precision
        self._options = options
        self._opened: dict[tuple[str, int], Any] = {}
        self._opening = threading.Lock()

    def __call__(self, name: str, threads: int = 0) -> Any:
        """Returns the onnxruntime.InferenceSession of a graph; threads: 0 takes the number in the options."""
        key = (name, threads or self._options.threads)
        with self._opening:
            if key not in self._opened:
                graph, options = self._bundle.graph(name, self._precision), replace(self._options, threads=key[1])
                self._opened[key] = open_session(self._bundle.path, graph, self._placement.provider(name), options)
        return self._opened[key]
