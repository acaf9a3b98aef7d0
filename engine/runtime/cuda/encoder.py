"""The encoder on a CUDA device: copies pixels there and leaves the features there. Knows nothing of files or words."""

from typing import Any

import numpy as np

from engine.runtime.cuda.buckets import bucket
from engine.runtime.cuda.device import Device, DeviceFeatures, GraphIds
from engine.runtime.pool import Pool


class DeviceEncoder:
    """Runs the encoder's graph in batches of bucket sizes; threads may share it.

    cuDNN, TensorRT and CUDA graphs then prepare for each bucket only once. Padding is encoded and ignored.
    """

    lanes = 0  # the device schedules its own work

    def __init__(self, device: Device, image: tuple[int, int, int], feature_shape: tuple[int, ...]) -> None:
        self._device = device
        self._image = image
        self._feature_shape = feature_shape
        self._ids = GraphIds()
        self._pools: dict[int, Pool[_EncoderBuffers]] = {}

    def encode(self, pixels: np.ndarray) -> DeviceFeatures:
        """Returns features (images, *feature_shape) on the device for uint8 pixels (images, height, width, 3)."""
        images = len(pixels)
        size = bucket(max(images, 1))
        with self._device.exclusive():
            pool = self._pools.setdefault(size, Pool(lambda: self._make(size)))
            owner = _Owner()
            buffers = pool.borrow(owner)
            if images:
                buffers.run(pixels)
            return DeviceFeatures(self._device, buffers.features, images, owner=owner)

    encode_in_lane = encode

    def _make(self, size: int) -> "_EncoderBuffers":
        return _EncoderBuffers(self._device, (size, *self._image), self._feature_shape, self._ids)


class _Owner:
    """Borrows buffers; it is freed once no features in their memory are left."""

    __slots__ = ("__weakref__",)


class _EncoderBuffers:
    """Memory for the pixels and features of one bucket, bound once."""

    def __init__(self, device: Device, shape: tuple[int, ...], feature_shape: tuple[int, ...], ids: GraphIds) -> None:
        self._session = device.session("encoder")
        self._pixels = device.allocate(shape, np.uint8)  # (size, height, width, 3)
        self._padded: np.ndarray | None = None
        whole = shape[0], *feature_shape
        self.features = device.allocate(whole, np.float32)
        self._binding = self._session.io_binding()
        self._options: Any = ids.options(0) if device.cuda_graphs else None
        device.bind_input(self._binding, "pixels", np.uint8, shape, self._pixels.data_ptr())
        device.bind_output(self._binding, "features", np.float32, whole, self.features.data_ptr())

    def run(self, pixels: np.ndarray) -> None:
        size = self._pixels.shape()[0]
        if len(pixels) < size:
            if self._padded is None:
                self._padded = np.zeros((size, *pixels.shape[1:]), np.uint8)
            self._padded[: len(pixels)] = pixels
            pixels = self._padded
        self._pixels.update_inplace(np.ascontiguousarray(pixels))
        self._session.run_with_iobinding(self._binding, self._options)
