"""Captions photographs: images in, sentences with scores out, on ONNX Runtime.

from engine import Captioner
print(Captioner().caption(["photo.jpg"])[0].text)
"""

from importlib import import_module
from typing import TYPE_CHECKING

from engine.captioner import Captioner
from engine.errors import (
    BundleError,
    ClosedError,
    DeadlineError,
    DeviceError,
    EngineError,
    ImageError,
    OptionsError,
    OverloadedError,
    ProviderError,
    StoreError,
)
from engine.images.formats import image_suffixes
from engine.options import DEFAULT_DECODING, Beam, DecodingOption, Greedy, Sample, decoding_options
from engine.result import Caption, Hypothesis
from engine.runtime.options import RuntimeOptions

if TYPE_CHECKING:
    from engine.scheduler import Scheduler
    from engine.scheduling.counters import Histogram, SchedulerStats
    from engine.scheduling.future import CaptionFuture, Timings
    from engine.scheduling.stream import CaptionStream
    from engine.search.indexing import Added
    from engine.search.photo import Found, Photo, Results, Sentence
    from engine.search.photo_index import PhotoIndex

__all__ = [
    "DEFAULT_DECODING",
    "Added",
    "Beam",
    "BundleError",
    "Caption",
    "CaptionFuture",
    "CaptionStream",
    "Captioner",
    "ClosedError",
    "DeadlineError",
    "DecodingOption",
    "DeviceError",
    "EngineError",
    "Found",
    "Greedy",
    "Histogram",
    "Hypothesis",
    "ImageError",
    "OptionsError",
    "OverloadedError",
    "Photo",
    "PhotoIndex",
    "ProviderError",
    "Results",
    "RuntimeOptions",
    "Sample",
    "Scheduler",
    "SchedulerStats",
    "Sentence",
    "StoreError",
    "Timings",
    "decoding_options",
    "image_suffixes",
]

_LATER = {
    "Added": "engine.search.indexing",
    "CaptionFuture": "engine.scheduling.future",
    "CaptionStream": "engine.scheduling.stream",
    "Found": "engine.search.photo",
    "Histogram": "engine.scheduling.counters",
    "Photo": "engine.search.photo",
    "PhotoIndex": "engine.search.photo_index",
    "Results": "engine.search.photo",
    "Scheduler": "engine.scheduler",
    "SchedulerStats": "engine.scheduling.counters",
    "Sentence": "engine.search.photo",
    "Timings": "engine.scheduling.future",
}
"""Imported on first use, so that `import engine` alone loads neither asyncio nor sqlite3."""

if not TYPE_CHECKING:  # a type checker would accept any name

    def __getattr__(name: str) -> object:
        if name not in _LATER:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = globals()[name] = getattr(import_module(_LATER[name]), name)
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_LATER})
