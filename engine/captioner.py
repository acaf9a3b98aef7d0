"""The Captioner: images in, captions out. Checks what callers pass; the model does the work."""

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Literal, overload

import numpy as np
from PIL import Image

from engine.attention import require_attention
from engine.autotune.select import Request
from engine.bundle.bundle import Bundle
from engine.decoding.decode import sentence_log_probs
from engine.errors import ImageError, OptionsError
from engine.fork_guard import ForkGuard
from engine.images.formats import FORMATS, check_formats
from engine.images.load import MAX_PIXELS, ImageInput
from engine.model import Model
from engine.options import DEFAULT_DECODING, Beam, Decoding, Greedy, require_decoding
from engine.result import Caption
from engine.runtime.cuda.device import DeviceFeatures
from engine.runtime.options import RuntimeOptions
from engine.validation import is_int, require


class Captioner:
    """Captions images with one bundle on one provider. Threads may share it: each call has its own state.

    bundle: a folder that `export.to_onnx` wrote; None is the one that ships. provider: "auto", "cpu", "cuda",
    "tensorrt", "openvino" or "tensorrt-rtx", or two for encoder and decoder, as in "cuda+cpu". precision: a precision
    in the bundle, or "auto". engine.autotune.select documents what "auto" does; `choice` says what was chosen and
    why. batch_size: most images that run at once; any number may be passed. max_pixels: larger images are
    refused. formats: Pillow's names of the formats to read; by default the usual ones of photographs.

    Raises BundleError (lists every problem), ProviderError (says what is missing and how to get it), OptionsError.
    """

    def __init__(
        self,
        bundle: str | Path | None = None,
        *,
        provider: str = "auto",
        precision: str = "auto",
        batch_size: int = 32,
        max_pixels: int = MAX_PIXELS,
        formats: Sequence[str] = FORMATS,
        runtime: RuntimeOptions | None = None,
    ) -> None:
        for name, value in (("batch_size", batch_size), ("max_pixels", max_pixels)):
            require(is_int(value, 1), "Captioner", name, value, "a whole number from 1")
        self.formats = check_formats(formats)
        self.max_pixels = max_pixels
        self.batch_size = batch_size
        self.bundle = Bundle.load(bundle)
        request = Request(
            provider=provider, precision=precision, batch_size=batch_size, runtime=runtime or RuntimeOptions()
        )
        self._fork_guard = ForkGuard("Captioner")
        self.model = Model.open(self.bundle, request, max_pixels=max_pixels, formats=self.formats)
        self.choice = self.model.choice
        self.provider, self.precision = self.choice.provider, self.choice.precision

    def __repr__(self) -> str:
        return f"Captioner({self.bundle.manifest.name!r}, provider={self.provider!r}, precision={self.precision!r})"

    @overload
    def caption(
        self,
        batch: Iterable[ImageInput],
        decoding: Decoding = ...,
        *,
        on_error: Literal["raise"] = ...,
        attention: bool = ...,
        features: bool = ...,
    ) -> list[Caption]: ...
    @overload
    def caption(
        self,
        batch: Iterable[ImageInput],
        decoding: Decoding = ...,
        *,
        on_error: Literal["return"],
        attention: bool = ...,
        features: bool = ...,
    ) -> list[Caption | ImageError]: ...
    def caption(
        self,
        batch: Iterable[ImageInput],
        decoding: Decoding = DEFAULT_DECODING,
        *,
        on_error: Literal["raise", "return"] = "raise",
        attention: bool = False,
        features: bool = False,
    ) -> Sequence[Caption | ImageError]:
        """Returns one caption for each image, in order.

        An image is a path, bytes, a binary file, a PIL image or a uint8 array (height, width, 3) or
        (height, width). One that cannot be read raises an ImageError that names the entry and the reason;
        on_error="return" puts that error in the entry's position and captions the rest. decoding: the bundle's beam
        search if left out; Greedy() is the fastest. attention: captions say where the model looked for each word, if it
        has attention; otherwise it raises OptionsError. features: captions have their image's features.
        """
        return list(self.iter_captions(batch, decoding, on_error=on_error, attention=attention, features=features))

    @overload
    def iter_captions(
        self,
        images: Iterable[ImageInput],
        decoding: Decoding = ...,
        *,
        on_error: Literal["raise"] = ...,
        attention: bool = ...,
        features: bool = ...,
    ) -> Iterator[Caption]: ...
    @overload
    def iter_captions(
        self,
        images: Iterable[ImageInput],
        decoding: Decoding = ...,
        *,
        on_error: Literal["return"],
        attention: bool = ...,
        features: bool = ...,
    ) -> Iterator[Caption | ImageError]: ...
    @overload
    def iter_captions(
        self,
        images: Iterable[ImageInput],
        decoding: Decoding = ...,
        *,
        on_error: Literal["raise", "return"],
        attention: bool = ...,
        features: bool = ...,
    ) -> Iterator[Caption | ImageError]: ...
    def iter_captions(
        self,
        images: Iterable[ImageInput],
        decoding: Decoding = DEFAULT_DECODING,
        *,
        on_error: Literal["raise", "return"] = "raise",
        attention: bool = False,
        features: bool = False,
    ) -> Iterator[Caption | ImageError]:
        """Yields what `caption` returns as images are read, with at most two batches of images in memory."""
        if on_error not in ("raise", "return"):
            raise OptionsError("on_error must be 'raise' or 'return'", name="on_error", value=on_error)
        _require_batch(images)
        require_decoding(decoding)
        self._fork_guard.check()
        if attention:
            require_attention(self.bundle.manifest)
        return self.model.captions(images, decoding, fail=on_error == "raise", attention=attention, features=features)

    def encode(self, batch: Iterable[ImageInput]) -> np.ndarray:
        """Returns the images' features: float32 (images, *feature_shape). Raises ImageError."""
        _require_batch(batch)
        self._fork_guard.check()
        parts = [encoded.features for encoded in self.model.encode_batches(batch, fail=True)]
        return np.concatenate([np.empty((0, *self.bundle.manifest.feature_shape), np.float32), *parts])

    def caption_features(
        self,
        features: np.ndarray | DeviceFeatures,
        decoding: Decoding = DEFAULT_DECODING,
        *,
        attention: bool = False,
    ) -> list[Caption]:
        """Returns one caption for each row of features from `encode`. Raises OptionsError."""
        require_decoding(decoding)
        self._fork_guard.check()
        shape = self.bundle.manifest.feature_shape
        if not isinstance(features, DeviceFeatures):
            features = np.asarray(features)
        if features.shape[1:] != shape or not features.shape:
            takes = ", ".join(map(str, shape))
            raise OptionsError(f"features have shape {features.shape}; this bundle takes (images, {takes})")
        return self.model.caption_features(features, decoding, attention=attention)

    def score(self, batch: Iterable[ImageInput], captions: Sequence[str]) -> np.ndarray:
        """Returns the log-probability of each caption, including END, given its image: float64 (images,).

        Words outside the vocabulary count as its word for unknown ones. Raises ImageError, and OptionsError if the
        lengths differ, or if the vocabulary has no such word.
        """
        captions = [captions] if isinstance(captions, str) else list(captions)
        if wrong := [caption for caption in captions if not isinstance(caption, str)]:
            raise OptionsError(f"captions must be text, and one of them is {wrong[0]!r}")
        features = self.encode(batch)
        if len(features) != len(captions):
            raise OptionsError(
                f"score() got {len(features)} images and {len(captions)} captions; pass one for each image"
            )
        vocabulary = self.bundle.vocabulary
        try:
            sentences = [vocabulary.encode(caption) for caption in captions]
        except ValueError as error:
            raise OptionsError(str(error)) from error
        parts = [
            sentence_log_probs(
                self.model.start(features[i : i + self.batch_size]), sentences[i : i + self.batch_size], len(vocabulary)
            )
            for i in range(0, len(features), self.batch_size)
        ]
        return np.concatenate([np.empty(0), *parts])

    def warmup(
        self, batch_sizes: Sequence[int] | None = None, decodings: Sequence[Decoding] = (Greedy(), Beam())
    ) -> None:
        """Captions grey images until all sessions, engines and CUDA graphs exist, so that no later call waits for them.

        batch_sizes: None means 1 and batch_size and, on a GPU, the sizes between. Raises OptionsError.
        """
        from engine.warmup import warm_up

        warm_up(self.model, batch_sizes, decodings)


def _require_batch(images: object) -> None:
    single = isinstance(images, str | bytes | bytearray | memoryview | os.PathLike | Image.Image)
    if single or hasattr(images, "read") or (isinstance(images, np.ndarray) and images.ndim in (2, 3)):
        kind = type(images).__name__
        raise OptionsError(f"caption() takes a batch of images, but got a single {kind}: pass [image]")
