"""A provider under test and its reference: plain session.run on the CPU with plain searches. States no laws."""

from collections.abc import Sequence
from functools import cached_property

import numpy as np

from benchmarks.baselines.plain_session import PlainSession
from benchmarks.photographs import photographs
from engine import Caption, Captioner
from engine.options import Decoding
from engine.selfcheck.compare import arithmetic_of

IMAGES, BATCH = 19, 8
"""Batches of 8, 8 and 3: the last is a smaller one."""
FEATURES = {"fp32": 1e-3, "fp16": 2e-2}
"""Largest |found - expected| / |expected| of an image's features; INTEGERS where a precision is not named."""
NATS = {"fp32": 1e-3, "fp16": 0.1}
"""Largest error of the log-probability of a sentence, for each of its words."""
INTEGERS = 0.5


class Case:
    """An engine configuration and its reference."""

    def __init__(self, captioner: Captioner) -> None:
        self.captioner = captioner
        self.plain = PlainSession(captioner.bundle)
        self.files = photographs(IMAGES)
        precision = arithmetic_of(captioner.model.graphs)
        self.exact = precision == "fp32"
        self.features_within = FEATURES.get(precision, INTEGERS)
        self.nats_within = NATS.get(precision, INTEGERS)

    @cached_property
    def expected(self) -> np.ndarray:
        """Features float32 (images, *feature_shape) by plain session.run, of the pixels that the engine reads."""
        pixels = [np.empty(self._shape, np.uint8) for _ in self.files]
        for entry, (file, out) in enumerate(zip(self.files, pixels, strict=True)):
            assert self.captioner.model.pipeline.read(entry, file, out) is None
        return self.plain.encode(np.stack(pixels))

    @property
    def _shape(self) -> tuple[int, int, int]:
        image = self.captioner.bundle.manifest.image
        return image.height, image.width, 3

    @cached_property
    def features(self) -> np.ndarray:
        """The same by the engine."""
        return self.captioner.encode(self.files)

    def decode(self, decoding: Decoding, features: np.ndarray | None = None) -> list[Caption]:
        """Decodes features, those by plain session.run unless others are given."""
        return self.captioner.caption_features(self.expected if features is None else features, decoding)

    def likelihoods(self, sentences: Sequence[Caption]) -> np.ndarray:
        """Returns the log-probability of sentences under the reference: float64 (images,)."""
        ids = self.captioner.bundle.vocabulary.ids
        tokens = [[ids[word] for word in sentence.tokens] for sentence in sentences]
        totals = np.zeros(len(tokens))
        for image, sentence in enumerate(tokens):
            state = self.plain.start(self.expected[image : image + 1])
            last = self.captioner.bundle.vocabulary.start_id
            for token in sentence:
                log_probs, state = self.plain.score(np.array([last]), state)
                totals[image] += log_probs[0, token]
                last = token
        return totals
