"""The baseline that a user would write first: Pillow and torchvision's transforms, then PyTorch eager, batch by batch.

Pixels are channels-last in memory, which is fastest on a CPU.
"""

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional
from torchvision import transforms

from benchmarks.baselines.base import Baseline
from benchmarks.baselines.restore import restore_decoder, restore_encoder
from benchmarks.baselines.search import State
from engine.bundle.bundle import Bundle


class Eager(Baseline):
    """PyTorch's encoder and decoder of a bundle."""

    def __init__(self, bundle: Bundle, threads: int = 0) -> None:
        super().__init__(bundle, threads)
        if threads:
            torch.set_num_threads(threads)
        self.encoder, self.decoder = restore_encoder(bundle), restore_decoder(bundle)
        mean, std = ([level / 255 for level in levels] for levels in (self.image.mean, self.image.std))
        size, resample = (self.image.height, self.image.width), transforms.InterpolationMode(self.image.resample)
        self.normalise = transforms.Compose([transforms.ToTensor(), transforms.Normalize(mean, std)])
        self.transform = transforms.Compose([transforms.Resize(size, resample), self.normalise])

    def pixels(self, files: Sequence[bytes]) -> Any:
        """Returns normalised float32 (files, 3, height, width), channels last in memory."""
        images = [self.transform(Image.open(io.BytesIO(file)).convert("RGB")) for file in files]
        return torch.stack(images).to(memory_format=torch.channels_last)

    def prepare(self, pixels: np.ndarray) -> Any:
        """See Baseline."""
        return torch.stack([self.normalise(image) for image in pixels]).to(memory_format=torch.channels_last)

    def levels(self, pixels: Any) -> np.ndarray:
        """See Baseline."""
        planes = pixels * self.encoder.std + self.encoder.mean  # (batch, 3, height, width)
        return np.asarray(planes.round().to(torch.uint8).permute(0, 2, 3, 1))

    @torch.inference_mode()
    def encode(self, pixels: Any) -> np.ndarray:
        """See Baseline."""
        return np.asarray(self.encoder.of_planes(pixels))

    @torch.inference_mode()
    def start(self, features: np.ndarray) -> State:
        """See Decoder."""
        state, context = self.decoder.start(torch.from_numpy(features))
        return (*state, *context)  # a row for each sentence

    @torch.inference_mode()
    def step(self, token_ids: np.ndarray, state: State) -> tuple[Tensor, State]:
        """See Decoder."""
        log_probs, *following = self.score(torch.from_numpy(token_ids), *state)
        log_probs[:, self.never] = -torch.inf
        return log_probs, tuple(following)

    def score(self, token_ids: Tensor, hidden: Tensor, cell: Tensor, *context: Tensor) -> tuple[Tensor, ...]:
        """Returns log-probabilities (rows, vocabulary) of all words, the next state, and the context."""
        decoder = self.decoder
        if context:
            logits, (hidden, cell) = decoder.step(token_ids, (hidden, cell), context)
        else:
            words = decoder.embedding(token_ids)
            hidden, cell = torch.lstm_cell(words, (hidden, cell), *decoder.lstm.all_weights[0])  # faster than nn.LSTM
            logits = decoder.output(functional.elu(decoder.logit_hidden(hidden)))
        return torch.log_softmax(logits, dim=1), hidden, cell, *context

    def best(self, log_probs: Tensor, k: int) -> tuple[np.ndarray, np.ndarray]:
        """See Decoder."""
        best, ids = log_probs.max(dim=1, keepdim=True) if k == 1 else log_probs.topk(k)
        return np.asarray(ids), np.asarray(best)

    def draw(self, log_probs: Tensor) -> np.ndarray:
        """See Decoder."""
        return np.asarray(torch.multinomial(log_probs.exp(), 1)[:, 0])
