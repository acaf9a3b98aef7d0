"""Greedy decoding for verification: PyTorch's decoder and the portable step in a plain loop, and the engine.

The loop is deliberately naive and independent of the engine's search, which it checks.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import onnxruntime as ort
import torch
from torch import nn

from engine import Caption, Captioner, Greedy
from engine.bundle.bundle import Bundle
from engine.bundle.manifest import Manifest
from engine.bundle.vocabulary import Vocabulary
from engine.images.load import ImageInput

PLAIN = Greedy(no_repeat_ngram_size=0, bad_endings=())  # like the loop, whatever the bundle's defaults
Arrays = tuple[np.ndarray, ...]
"""State or context, each with a row for each sentence."""


class Decoder(Protocol):
    """One half of a comparison: a decoder as arrays in, arrays out."""

    def start(self, features: np.ndarray) -> tuple[Arrays, Arrays]:
        """Turns features (rows, *feature_shape) into the first state, and the context."""

    def step(self, token_ids: np.ndarray, state: Arrays, context: Arrays) -> tuple[np.ndarray, Arrays]:
        """Reads a word per row, int64 (rows,); returns log-probabilities (rows, vocabulary) and the next state."""


class TorchDecoder:
    """PyTorch's decoder: see export.decoder for its methods."""

    def __init__(self, decoder: nn.Module) -> None:
        self.decoder: Any = decoder.eval()

    @torch.no_grad()
    def start(self, features: np.ndarray) -> tuple[Arrays, Arrays]:
        """See Decoder."""
        state, context = self.decoder.start(torch.from_numpy(features))
        return _arrays(state), _arrays(context)

    @torch.no_grad()
    def step(self, token_ids: np.ndarray, state: Arrays, context: Arrays) -> tuple[np.ndarray, Arrays]:
        """See Decoder."""
        given = (tuple(map(torch.from_numpy, arrays)) for arrays in (state, context))
        logits, following = self.decoder.step(torch.from_numpy(token_ids), *given)
        return torch.log_softmax(logits, dim=-1).numpy(), _arrays(following)


def _arrays(tensors: Sequence[torch.Tensor]) -> Arrays:
    return tuple(tensor.numpy() for tensor in tensors)


class OnnxDecoder:
    """The graphs decoder_init and decoder_step, run on the CPU."""

    def __init__(self, manifest: Manifest, init: ort.InferenceSession, step: ort.InferenceSession) -> None:
        self._state = [each.name for each in manifest.state]
        self._next = [each.next for each in manifest.state]
        self._context = [each.name for each in manifest.context]
        self._init, self._step = init, step

    def start(self, features: np.ndarray) -> tuple[Arrays, Arrays]:
        """See Decoder."""
        found = self._init.run([*self._state, *self._context], {"features": features})
        return tuple(found[: len(self._state)]), tuple(found[len(self._state) :])

    def step(self, token_ids: np.ndarray, state: Arrays, context: Arrays) -> tuple[np.ndarray, Arrays]:
        """See Decoder."""
        given = zip([*self._state, *self._context], [*state, *context], strict=True)
        log_probs, *following = self._step.run(["log_probs", *self._next], {"token_ids": token_ids, **dict(given)})
        return log_probs, tuple(following)


@dataclass(frozen=True, slots=True)
class Decoded:
    """Sentences as ids, int64 (rows, length), PAD behind their END, and each id's log-probability, float32."""

    ids: np.ndarray
    log_probs: np.ndarray


def greedy(decoder: Decoder, features: np.ndarray, vocabulary: Vocabulary, max_length: int) -> Decoded:
    """Takes the likeliest token, END included, up to max_length; never PAD, UNK or START."""
    state, context = decoder.start(features)
    rows = np.arange(len(features))
    previous = np.full(len(features), vocabulary.start_id)
    ids = np.full((len(features), max_length), vocabulary.pad_id)
    log_probs = np.zeros(ids.shape, dtype=np.float32)
    live = np.ones(len(features), dtype=bool)
    for position in range(max_length):
        allowed, state = _allowed(decoder, previous, state, context, vocabulary)
        previous = allowed.argmax(axis=1)  # (rows,)
        ids[live, position] = previous[live]
        log_probs[live, position] = allowed[rows, previous][live]
        live &= previous != vocabulary.end_id
    return Decoded(ids, log_probs)


class EngineGreedy:
    """The engine's greedy decoding of a bundle, on the CPU, in the same form."""

    def __init__(self, bundle: Bundle) -> None:
        self._captioner = Captioner(bundle.path, provider="cpu", precision="fp32")
        self._bundle = bundle

    def from_features(self, features: np.ndarray) -> Decoded:
        """Decodes features (rows, *feature_shape)."""
        return self._decoded(self._captioner.caption_features(features, PLAIN))

    def from_pictures(self, pictures: Sequence[ImageInput]) -> Decoded:
        """Decodes images, read and encoded by the engine."""
        return self._decoded(self._captioner.caption(pictures, PLAIN))

    def _decoded(self, captions: Sequence[Caption]) -> Decoded:
        vocabulary, longest = self._bundle.vocabulary, self._bundle.manifest.defaults.max_length
        ids = np.full((len(captions), longest), vocabulary.pad_id)
        log_probs = np.zeros(ids.shape, dtype=np.float32)
        for row, caption in enumerate(captions):
            ids[row, : len(caption.tokens)] = [vocabulary.ids[word] for word in caption.tokens]
            log_probs[row, : len(caption.tokens)] = caption.token_log_probs
        return Decoded(ids, log_probs)


def decode_error(decoder: Decoder, features: np.ndarray, decoded: Decoded, vocabulary: Vocabulary) -> float:
    """Returns how far a decode is from the greedy decode of `decoder`.

    Each token must be the decoder's likeliest one after the tokens before it. The result is the largest difference in
    log-probability, either to the likeliest token or to the reported value. So it is small only if the words are the
    same, except for ties closer than the result. A sentence that stops without END before the last position gives
    infinity.
    """
    state, context = decoder.start(features)
    rows = np.arange(len(features))
    previous = np.full(len(features), vocabulary.start_id)
    live = np.ones(len(features), dtype=bool)
    worst = 0.0
    for ids, reported in zip(decoded.ids.T, decoded.log_probs.T, strict=True):
        allowed, state = _allowed(decoder, previous, state, context, vocabulary)
        own = allowed[rows, ids]  # -inf where the token is one that is never produced
        errors = np.maximum(allowed.max(axis=1) - own, np.abs(own - reported))
        worst = max(worst, float(errors[live].max(initial=0.0)))
        live &= ids != vocabulary.end_id
        previous = ids
    return worst


def _allowed(
    decoder: Decoder, previous: np.ndarray, state: Arrays, context: Arrays, vocabulary: Vocabulary
) -> tuple[np.ndarray, Arrays]:
    log_probs, state = decoder.step(previous, state, context)  # (rows, vocabulary)
    allowed = log_probs.copy()
    allowed[:, list(vocabulary.never)] = -np.inf
    return allowed, state
