"""The baseline: what a user writes in PyTorch with Pillow, eager, on the same weights and by the same algorithms.

It is written to be fast where that is plain to do: images are decoded on all cores, convolutions run channels-last,
in inference mode and in chunks of the size that is fastest on this machine, and rows leave the batch when their
sentence is done.
"""

import io
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from benchmarks.restore import restore_decoder, restore_encoder
from engine.bundle import Bundle

CHUNKS = (4, 8, 16, 32)
"""Numbers of images that the encoder is tried with at once: of large batches it may be slower than of small ones."""
ROUNDS = 3

Choose = Callable[[int, Tensor], Tensor]
"""Gets the position and the log-probabilities (rows, vocabulary), -inf for what may not come; returns ids (rows,)."""


class Sentence(NamedTuple):
    """A caption: its words, and its log-probability over its length (END counted) to the power of the penalty."""

    text: str
    score: float


class Growing(NamedTuple):
    """A sentence in a beam."""

    tokens: tuple[int, ...]
    log_prob: float


class Baseline:
    """PyTorch's encoder and decoder of a bundle, on the CPU."""

    def __init__(self, bundle: Bundle) -> None:
        self.encoder, self.decoder = restore_encoder(bundle), restore_decoder(bundle)
        self.image, self.vocabulary = bundle.manifest.image, bundle.vocabulary
        self.max_length, self.length_penalty = (
            bundle.manifest.defaults.max_length,
            bundle.manifest.defaults.length_penalty,
        )
        self.never = [self.vocabulary.pad_id, self.vocabulary.unk_id, self.vocabulary.start_id]
        self.pool = ThreadPoolExecutor(os.cpu_count())
        self.chunk = self._fastest_chunk()

    def pixels(self, files: Sequence[bytes]) -> np.ndarray:
        """Decodes and resizes image files on all cores: uint8 (files, height, width, 3)."""
        return np.stack(list(self.pool.map(self._pixels, files)))

    def _pixels(self, file: bytes) -> np.ndarray:
        size, resample = (self.image.width, self.image.height), Image.Resampling[self.image.resample.upper()]
        return np.asarray(Image.open(io.BytesIO(file)).convert("RGB").resize(size, resample))

    def encode(self, pixels: np.ndarray) -> Tensor:
        """Returns features float32 (batch, feature_size) of uint8 pixels (batch, height, width, 3)."""
        return self.encode_in_chunks(pixels, self.chunk)

    @torch.inference_mode()
    def encode_in_chunks(self, pixels: np.ndarray, chunk: int) -> Tensor:
        """Encodes at most `chunk` images at once."""
        images = torch.from_numpy(pixels)
        return torch.cat([self.encoder(images[i : i + chunk]) for i in range(0, len(images), chunk)])

    def _fastest_chunk(self) -> int:
        """Times each size on as many images as the largest, in turns, and returns that of the shortest time."""
        shape = (max(CHUNKS), self.image.height, self.image.width, 3)
        pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
        shortest = dict.fromkeys(CHUNKS, float("inf"))
        for chunk in CHUNKS * ROUNDS:
            start = time.perf_counter()
            self.encode_in_chunks(pixels, chunk)
            shortest[chunk] = min(shortest[chunk], time.perf_counter() - start)
        return min(CHUNKS, key=shortest.__getitem__)

    @torch.inference_mode()
    def start(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the first hidden and cell state, each (rows, units)."""
        return self.decoder.start(features)

    @torch.inference_mode()
    def step(self, token_ids: Tensor, hidden: Tensor, cell: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Reads a word per row; returns log-probabilities (rows, vocabulary) and the next state."""
        decoder = self.decoder
        words = decoder.embedding(token_ids)
        hidden, cell = torch.lstm_cell(words, (hidden, cell), *decoder.lstm.all_weights[0])  # faster than nn.LSTM
        log_probs = torch.log_softmax(decoder.output(functional.elu(decoder.logit_hidden(hidden))), dim=1)
        log_probs[:, self.never] = -torch.inf
        return log_probs, hidden, cell

    @torch.inference_mode()
    def decode(self, features: Tensor, choose: Choose) -> list[Sentence]:
        """Writes a sentence for each row of features, each token as `choose` says."""
        hidden, cell = self.start(features)
        tokens = torch.full((len(features), self.max_length), self.vocabulary.end_id)
        gained = torch.zeros(len(features), self.max_length)
        rows = torch.arange(len(features))
        last = torch.full((len(features),), self.vocabulary.start_id)
        for position in range(self.max_length):
            log_probs, hidden, cell = self.step(last, hidden, cell)
            last = choose(position, log_probs)
            tokens[rows, position] = last
            gained[rows, position] = log_probs.gather(1, last[:, None])[:, 0]
            going = last != self.vocabulary.end_id
            if not going.all():
                rows, last, hidden, cell = rows[going], last[going], hidden[going], cell[going]
            if not len(rows):
                break
        totals = gained.sum(dim=1).tolist()
        return [self._sentence(Growing(tuple(ids), total)) for ids, total in zip(tokens.tolist(), totals, strict=True)]

    @torch.inference_mode()
    def beam(self, features: Tensor, beam_size: int) -> list[Sentence]:
        """Writes the best sentence of a beam search for each row of features.

        Each step ranks an image's 2 x beam_size best continuations; an END among the first beam_size is kept. An
        image is done when beam_size sentences have ended or no growing one can overtake the best that has.
        """
        hidden, cell = self.start(features)
        found: list[list[Growing]] = [[] for _ in features]
        beams = {image: [Growing((), 0.0)] for image in range(len(features))}  # of the images that are not done
        for _ in range(self.max_length):
            last = [growing.tokens[-1:] or (self.vocabulary.start_id,) for beam in beams.values() for growing in beam]
            log_probs, hidden, cell = self.step(torch.tensor(last)[:, 0], hidden, cell)
            log_probs_so_far = [[growing.log_prob for growing in beam] for beam in beams.values()]
            so_far = torch.tensor(log_probs_so_far, dtype=torch.float64)  # (images, width)
            best, ids = log_probs.topk(2 * beam_size)  # (rows, 2 * beam_size)
            totals = (so_far.reshape(-1, 1) + best).reshape(len(beams), -1)  # (images, width * 2 * beam_size)
            totals, places = totals.topk(2 * beam_size)  # (images, 2 * beam_size)
            tokens = ids.reshape(len(beams), -1).gather(1, places)
            parents = places // (2 * beam_size)
            following, parent_rows = {}, []
            candidates = zip(totals.tolist(), tokens.tolist(), parents.tolist(), strict=True)
            for place, (image, ranked) in enumerate(zip(beams, candidates, strict=True)):
                ended, going, from_beams = self._continue(beams[image], ranked, beam_size)
                found[image] += ended
                if len(found[image]) < beam_size and self._may_improve(going[0], found[image]):
                    following[image] = going
                    parent_rows += [place * so_far.shape[1] + parent for parent in from_beams]
            if not following:
                break
            beams = following
            hidden, cell = hidden[parent_rows], cell[parent_rows]
        return [self._sentence(max(ended or beams[image], key=self._score)) for image, ended in enumerate(found)]

    def _continue(
        self, beam: list[Growing], ranked: tuple[list[float], list[int], list[int]], beam_size: int
    ) -> tuple[list[Growing], list[Growing], list[int]]:
        """Returns an image's sentences that end, those that go on, and the beams that these come from."""
        ended, going, parents = [], [], []
        for rank, (total, token, parent) in enumerate(zip(*ranked, strict=True)):
            growing = Growing((*beam[parent].tokens, token), total)
            if token != self.vocabulary.end_id:
                going.append(growing)
                parents.append(parent)
            elif rank < beam_size:
                ended.append(growing)
        return ended, going[:beam_size], parents[:beam_size]

    def _score(self, growing: Growing) -> float:
        return growing.log_prob / float(self._length(growing.tokens) ** self.length_penalty)

    def _length(self, tokens: Sequence[int]) -> int:
        """Counts tokens up to END, which counts."""
        return tokens.index(self.vocabulary.end_id) + 1 if self.vocabulary.end_id in tokens else len(tokens)

    def _may_improve(self, growing: Growing, ended: Sequence[Growing]) -> bool:
        reachable = growing.log_prob / float(self.max_length**self.length_penalty)
        return not ended or reachable > max(map(self._score, ended))

    def _sentence(self, growing: Growing) -> Sentence:
        return Sentence(self.vocabulary.decode(growing.tokens), self._score(growing))


def likeliest(position: int, log_probs: Tensor) -> Tensor:
    """Greedy decoding."""
    return log_probs.argmax(dim=1)


def draw(position: int, log_probs: Tensor) -> Tensor:
    """Draws from the distribution, as everyone does in PyTorch."""
    return torch.multinomial(log_probs.exp(), 1)[:, 0]
