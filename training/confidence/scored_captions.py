"""Captions with their CIDEr and their tokens' log-probabilities, for several decodings of each image.

Fits and measures nothing.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from engine import Beam, Captioner, Greedy, ImageError, Sample
from engine.confidence import FEATURES
from engine.options import Decoding
from training.data.datasets import Dataset
from training.metrics.tokens import Tokeniser, Tokens

WAYS: dict[str, Decoding] = {
    "beam": Beam(),
    "greedy": Greedy(),
    "sampling, temperature 0.5": Sample(seed=0, temperature=0.5),
    "sampling": Sample(seed=0),
}  # bundles are calibrated for the first

Array = NDArray[np.float64]


class CalibrationError(ValueError):
    """Raised when no confidence can be fitted to the captions; the message says why."""


@dataclass(frozen=True, slots=True)
class ScoredCaptions:
    """The captions of all images in one order: their tokens' log-probabilities, and CIDEr (images,)."""

    log_probs: list[tuple[float, ...]]
    ciders: Array

    @classmethod
    def joined(cls, parts: Sequence["ScoredCaptions"]) -> "ScoredCaptions":
        """Concatenates the captions of several data sets."""
        return cls([row for part in parts for row in part.log_probs], np.concatenate([part.ciders for part in parts]))

    def features(self, names: Sequence[str]) -> Array:
        """Returns the named features of engine.confidence: (images, features)."""
        return np.array([[FEATURES[name](row) for name in names] for row in self.log_probs], np.float64)


def caption_and_score(
    captioner: Captioner, dataset: Dataset, references: Tokens, tokeniser: Tokeniser
) -> dict[str, ScoredCaptions]:
    """Captions the images with each decoding; returns "precision decoding" -> captions. Raises CalibrationError."""
    images = [example.name for example in dataset.examples]

    def photographs() -> Iterator[bytes]:
        for name in tqdm(images, f"encoding, {captioner.precision}", unit="image", disable=None):
            yield dataset.read(name)

    try:
        features = captioner.encode(photographs())
    except ImageError as error:
        name = images[error.entry or 0]
        raise CalibrationError(
            f"{name} cannot be read ({error.reason}): leave it out of {dataset.report.source}"
        ) from error
    scored = {}
    for way, decoding in WAYS.items():
        captions = captioner.caption_features(features, decoding)
        said = tokeniser({name: [caption.text] for name, caption in zip(images, captions, strict=True)})
        rows = [caption.token_log_probs for caption in captions]
        scored[f"{captioner.precision} {way}"] = ScoredCaptions(rows, ciders(references, said))
    return scored


def ciders(references: Tokens, said: Tokens) -> Array:
    """Returns each image's CIDEr, in the order of `references`; document frequencies are those of the references."""
    from pycocoevalcap.cider.cider import Cider

    return np.asarray(Cider().compute_score(references, said)[1], np.float64)


def human_ciders(references: Tokens) -> Array:
    """Returns the CIDEr of every human caption against the others of its image: (captions,)."""
    scores = []
    for place in range(max(map(len, references.values()))):
        rest = {
            name: texts[:place] + texts[place + 1 :] for name, texts in references.items() if len(texts) > max(place, 1)
        }
        if rest:
            scores.append(ciders(rest, {name: [references[name][place]] for name in rest}))
    if not scores:
        raise CalibrationError("the threshold needs images with two captions or more: choose another data set")
    return np.concatenate(scores)
