"""How to run: threads, device, memory, engine cache. Owns the values and their checks."""

import os
from dataclasses import dataclass, replace
from pathlib import Path

from engine.runtime.cuda.buckets import bucket
from engine.validation import is_int, require

SIBLINGS = Path("/sys/devices/system/cpu")
CONV_SEARCHES = ("EXHAUSTIVE", "HEURISTIC", "DEFAULT")


def cores() -> int:
    """Returns how many cores this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)  # Linux only
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def whole_cores() -> int:
    """Returns how many physical cores this process may use, if the system reports which threads share a core."""
    affinity = getattr(os, "sched_getaffinity", None)
    numbers = affinity(0) if affinity else ()
    try:
        told = {(SIBLINGS / f"cpu{number}/topology/thread_siblings_list").read_text() for number in numbers}
    except OSError:
        return cores()
    return len(told) or cores()


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimeOptions:
    """How sessions are built. Each provider uses the options that concern it and ignores the others.

    threads: CPU threads of the engine; 0 is one for each core; more than that is slower.
    device_id: number of the GPU.
    gpu_memory_limit: most bytes of GPU memory that a session may use; None is no limit. (cuda)
    cudnn_conv_algo_search: how cuDNN picks a convolution: "EXHAUSTIVE", "HEURISTIC" or "DEFAULT". (cuda)
    tf32: rounds the inputs of fp32 matrix products to 10 bits of mantissa. (cuda)
    cuda_graphs: each thread captures each fixed-shape run once and replays it later, with fewer launches. During a
    capture nothing else in the process, such as PyTorch, may use the device; the engine's own threads wait. (cuda)
    fp16: lets TensorRT compute in half precision. (tensorrt)
    engine_cache: folder where TensorRT saves the engines it builds; None is one in the user's cache. (tensorrt*)
    profile_images: fewest, usual and most images that TensorRT builds the encoder for; None derives them from the
    Captioner's batch_size, see `for_batches`. (tensorrt*)
    """

    threads: int = 0
    device_id: int = 0
    gpu_memory_limit: int | None = None
    cudnn_conv_algo_search: str = "HEURISTIC"
    tf32: bool = False
    cuda_graphs: bool = False
    fp16: bool = False
    engine_cache: str | Path | None = None
    profile_images: tuple[int, int, int] | None = None

    def __post_init__(self) -> None:
        for name in ("threads", "device_id"):
            self._require(name, is_int(getattr(self, name), 0), "a whole number from 0")
        limit = self.gpu_memory_limit
        self._require("gpu_memory_limit", limit is None or is_int(limit, 1), "a whole number of bytes from 1, or None")
        known = self.cudnn_conv_algo_search in CONV_SEARCHES
        self._require("cudnn_conv_algo_search", known, f"one of {', '.join(CONV_SEARCHES)}")
        for name in ("tf32", "cuda_graphs", "fp16"):
            self._require(name, isinstance(getattr(self, name), bool), "True or False")
        cache = self.engine_cache
        self._require("engine_cache", cache is None or isinstance(cache, str | os.PathLike), "a folder, or None")
        profile = self.profile_images
        whole = isinstance(profile, tuple) and len(profile) == 3 and all(is_int(size, 1) for size in profile)
        fits = profile is None or (whole and list(profile) == sorted(profile))
        self._require("profile_images", fits, "three whole numbers from 1 in rising order, or None")

    def for_batches(self, batch_size: int) -> "RuntimeOptions":
        """Returns the same options, with a profile for batches up to batch_size if none is given.

        A batch is padded to a bucket before it runs. Raises OptionsError if the given profile is for smaller batches.
        """
        given, images = self.profile_images, bucket(batch_size)
        what = f"a profile whose last number is at least {images}, for batch_size={batch_size}"
        self._require("profile_images", given is None or given[2] >= images, what)
        return replace(self, profile_images=given or (1, images, images))

    def _require(self, name: str, condition: bool, what: str) -> None:
        require(condition, type(self).__name__, name, getattr(self, name), what)
