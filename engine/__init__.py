"""Captions photographs: images in, sentences with scores out, on ONNX Runtime.

from engine import Captioner
print(Captioner().caption(["photo.jpg"])[0].text)
"""

from engine.captioner import Captioner
from engine.errors import BundleError, EngineError, ImageError, OptionsError, ProviderError
from engine.options import Beam, Greedy, Sample
from engine.result import Caption, Hypothesis
from engine.runtime.options import RuntimeOptions

__all__ = [
    "Beam",
    "BundleError",
    "Caption",
    "Captioner",
    "EngineError",
    "Greedy",
    "Hypothesis",
    "ImageError",
    "OptionsError",
    "ProviderError",
    "RuntimeOptions",
    "Sample",
]
