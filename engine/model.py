"""An opened bundle: images to features, features to captions. Captioner, Scheduler and warm-up all run it.

Owns how the image pipeline and the graphs work together. Knows nothing of callers, queues or threads.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import lru_cache, partial

import numpy as np

from engine.attention import attention_maps
from engine.autotune.select import Choice, Request, open_first, select
from engine.bundle.bundle import Bundle
from engine.decoding.constraints import TokenConstraints
from engine.decoding.decode import decode, rows_per_image
from engine.decoding.step_model import StepModel
from engine.errors import ImageError
from engine.images.load import ImageInput, load_for_model
from engine.images.pipeline import Encoded, Pipeline
from engine.options import Decoding
from engine.result import Caption
from engine.runtime.cuda.device import DeviceFeatures
from engine.runtime.cuda.encoder import DeviceEncoder
from engine.runtime.encoder import Encoder
from engine.runtime.graphs import Graphs
from engine.runtime.placement import Placement
from engine.selfcheck.verify import require_shown

MAX_ROWS = 512  # per decode, unless one image needs more: limits memory for wide beams and many samples

Features = np.ndarray | DeviceFeatures
"""float32 (images, *feature_shape), in host or device memory."""


class Model:
    """A bundle on one provider in one precision. Threads may share it: each decode has its own state."""

    def __init__(self, bundle: Bundle, choice: Choice, graphs: Graphs, pipeline: Pipeline, batch_size: int) -> None:
        """batch_size: most images that run at once."""
        self.bundle = bundle
        self.choice = choice
        self.graphs = graphs
        self.pipeline = pipeline
        self.batch_size = batch_size
        words, defaults = bundle.vocabulary, bundle.manifest.defaults
        # the partial does not refer to this model, so dropping the model frees it at once
        self.constraints: Callable[[Decoding], TokenConstraints] = lru_cache(maxsize=256)(
            partial(TokenConstraints.of, vocabulary=words, defaults=defaults)
        )
        """Translates options to token ids. Raises OptionsError for options that do not fit this model."""

    @classmethod
    def open(cls, bundle: Bundle, request: Request, *, max_pixels: int, formats: Sequence[str]) -> "Model":
        """Opens the first choice that starts and passes the self-check. Raises ProviderError, BundleError."""
        choice, graphs = open_first(select(bundle, request), partial(_open, bundle, request.batch_size))
        image = bundle.manifest.image
        quick = choice.precision != "fp32"  # fp32 reads exact pixels
        load = partial(load_for_model, image=image, max_pixels=max_pixels, formats=tuple(formats), quick=quick)
        shape = (image.height, image.width, 3)
        pipeline = Pipeline(load, graphs.encoder, shape=shape, batch_size=request.batch_size)
        return cls(bundle, choice, graphs, pipeline, request.batch_size)

    @property
    def encoder(self) -> Encoder | DeviceEncoder:
        """The encoder, from pixels to features."""
        return self.graphs.encoder

    @property
    def on_device(self) -> bool:
        """Whether encoder or decoder runs on a GPU and leaves its results in GPU memory."""
        return self.graphs.on_device

    def encode(self, images: Sequence[ImageInput], *, alone: bool) -> Encoded:
        """Reads and encodes images in the calling thread; alone: no other thread is encoding."""
        return self.pipeline.encode(images, alone=alone)

    def encode_batches(self, images: Iterable[ImageInput], *, fail: bool) -> Iterator[Encoded]:
        """Yields images batch by batch, encoded one batch ahead; fail: raises the first ImageError."""
        return self.pipeline.run(images, fail=fail)

    def for_decoder(self, features: Features) -> Features:
        """Returns features in the memory that the decoder reads, so that a batch is copied once, not in parts."""
        return self.graphs.for_decoder(features)

    def start(self, features: Features) -> StepModel:
        """Starts the decode of a batch."""
        return self.graphs.start(features)

    def start_empty(self, capacity: int) -> StepModel:
        """Starts a decode to which images are admitted later; capacity: most rows and images at a time."""
        return self.graphs.start_empty(capacity)

    def captions(
        self,
        images: Iterable[ImageInput],
        decoding: Decoding,
        *,
        fail: bool = True,
        attention: bool = False,
        features: bool = False,
    ) -> Iterator[Caption | ImageError]:
        """Yields a caption for each image, in order; unless fail, an ImageError for one that cannot be read."""
        for encoded in self.encode_batches(images, fail=fail):
            captions = self.caption_features(encoded.features, decoding, attention=attention)
            if features:
                rows = np.asarray(encoded.features)
                captions = [replace(each, features=row) for each, row in zip(captions, rows, strict=True)]
            left = iter(captions)
            yield from (error or next(left) for error in encoded.errors)

    def caption_features(self, features: Features, decoding: Decoding, *, attention: bool = False) -> list[Caption]:
        """Returns a caption for each row of features, split into several decodes if memory requires it."""
        manifest, vocabulary = self.bundle.manifest, self.bundle.vocabulary
        defaults = manifest.defaults
        images = max(1, min(self.batch_size, MAX_ROWS // rows_per_image(decoding, defaults)))
        captions: list[Caption] = []
        for i in range(0, len(features), images):
            part = features[i : i + images]
            # the step model is freed with each decode, and the next one reuses its memory
            decoded = decode(
                self.start(part), decoding, self.constraints(decoding), vocabulary, defaults, manifest.confidence
            )
            captions += self.with_attention(part, decoded) if attention else decoded
        return captions

    def with_attention(self, features: Features, captions: Sequence[Caption]) -> list[Caption]:
        """Returns captions of features with their attention. Raises OptionsError."""
        ids, end = self.bundle.vocabulary.ids, self.bundle.vocabulary.end_id
        sentences = [[ids[word] for word in caption.tokens if ids[word] != end] for caption in captions]
        maps = attention_maps(self.graphs, np.asarray(features), sentences)
        return [replace(caption, attention=each) for caption, each in zip(captions, maps, strict=True)]


def _open(bundle: Bundle, batch_size: int, choice: Choice) -> Graphs:
    """Opens graphs and runs the self-check on them. Raises ProviderError."""
    placement, runtime = Placement.of(choice.provider), choice.runtime
    if placement.encoder.cache is not None:
        runtime = runtime.for_batches(batch_size)
    graphs = Graphs.open(bundle, placement, choice.precision, runtime)
    if require_shown(graphs, batch_size) and placement.encoder.cache is None:
        graphs = Graphs.open(bundle, placement, choice.precision, runtime)  # without the extra sessions of the check
    return graphs
