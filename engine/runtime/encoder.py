"""The encoder of a bundle on one provider: pixels to features. Knows nothing of files, callers' batches or words.

On a CPU it runs in one of two ways: with all threads on each run, which gives the lowest latency for one image; or in
lanes, as many parallel runs as there are threads, each with one thread and its own images. Lanes never wait for each
other inside a layer, so they encode more images a second.
"""

import threading
from collections.abc import Callable
from typing import Any

import numpy as np

WIDE_IMAGES = 8  # per run with all threads: 32 are no faster and take three times the memory
LANE_IMAGES = 4  # per run in a lane


class Encoder:
    """Runs the encoder's graph; threads may share it.

    open_session(threads) returns the graph's onnxruntime.InferenceSession with that many threads, 0 for all of them.
    lanes: number of parallel runs; 0 on a provider that schedules its own work.
    """

    def __init__(self, open_session: Callable[[int], Any], feature_shape: tuple[int, ...], *, lanes: int) -> None:
        self.lanes = lanes
        self._open_session = open_session
        self._feature_shape = feature_shape
        self._wide = threading.Lock()
        self._free_lanes = threading.Semaphore(max(lanes, 1))

    def encode(self, pixels: np.ndarray) -> np.ndarray:
        """Returns float32 (images, *feature_shape) for uint8 pixels (images, height, width, 3), with all threads.

        While another caller is using them, a second caller computes in its own thread.
        """
        if self.lanes and not self._wide.acquire(blocking=False):
            return self.encode_in_lane(pixels)
        try:
            return self._run(self._open_session(0), pixels, WIDE_IMAGES)
        finally:
            if self.lanes:
                self._wide.release()

    def encode_in_lane(self, pixels: np.ndarray) -> np.ndarray:
        """Does the same with one thread; up to `lanes` callers run in parallel, further ones wait."""
        with self._free_lanes:
            return self._run(self._open_session(1), pixels, LANE_IMAGES)

    def _run(self, session: Any, pixels: np.ndarray, at_once: int) -> np.ndarray:
        features = np.empty((len(pixels), *self._feature_shape), np.float32)
        for i in range(0, len(pixels), at_once):
            part, images = features[i : i + at_once], np.ascontiguousarray(pixels[i : i + at_once])
            binding = session.io_binding()
            binding.bind_cpu_input("pixels", images)  # keeps only its address
            binding.bind_output("features", "cpu", 0, part.dtype, part.shape, part.ctypes.data)
            session.run_with_iobinding(binding)
        return features
