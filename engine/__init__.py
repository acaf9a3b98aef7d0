"""Captions photographs: images in, sentences with scores out, on ONNX Runtime.

from engine import Captioner
print(Captioner().caption(["photo.jpg"])[0].text)
"""

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
)
from engine.options import Beam, Greedy, Sample
from engine.result import Caption, Hypothesis
from engine.runtime.options import RuntimeOptions
from engine.scheduler import Scheduler
from engine.scheduling.counters import Histogram, SchedulerStats
from engine.scheduling.future import CaptionFuture, Timings
from engine.scheduling.stream import CaptionStream

__all__ = [
    "Beam",
    "BundleError",
    "Caption",
    "CaptionFuture",
    "CaptionStream",
    "Captioner",
    "ClosedError",
    "DeadlineError",
    "DeviceError",
    "EngineError",
    "Greedy",
    "Histogram",
    "Hypothesis",
    "ImageError",
    "OptionsError",
    "OverloadedError",
    "ProviderError",
    "RuntimeOptions",
    "Sample",
    "Scheduler",
    "SchedulerStats",
    "Timings",
]
