"""Samples sentences from a decoder, many at once. Knows no rewards and no training."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from engine.bundle.vocabulary import Vocabulary
from training.models.decoder import CaptionDecoder


def draw(logits: Tensor, never: Sequence[int], *, greedy: bool = False) -> Tensor:
    """Draws one word per row from softmax(logits), or takes the likeliest: int64 (rows,); never one of `never`.

    One random number per row is looked up in the cumulative probabilities. logits, float32 (rows, vocabulary), are
    overwritten.
    """
    logits[:, never] = -torch.inf
    if greedy:
        return logits.argmax(dim=-1)
    logits -= logits.amax(dim=-1, keepdim=True)
    sums = logits.exp_().cumsum(dim=-1)  # (rows, vocabulary)
    below = 1 - 1e-6  # below the last sum after rounding, too
    drawn = torch.searchsorted(sums, torch.rand_like(sums[:, :1]) * sums[:, -1:] * below, right=True)[:, 0]
    return drawn.clamp_(max=logits.shape[1] - 1)  # for NaN


@dataclass(frozen=True, slots=True)
class Sampler:
    """How sentences are sampled: `greedy` takes the likeliest word; `max_words` cuts sentences without END."""

    vocabulary: Vocabulary
    max_words: int = 20
    greedy: bool = False

    @torch.no_grad()
    def say(self, decoder: CaptionDecoder, features: Tensor, samples: int = 1) -> Tensor:
        """Samples `samples` sentences for each image; features are float32 (images, ...).

        Returns int64 (images * samples, longest): START, words, END (unless cut) and padding; an image's sentences are
        adjacent. Ended sentences cost nothing. Dropout depends on the decoder's mode.
        """
        words = self.vocabulary
        never = [words.pad_id, words.unk_id, words.start_id]
        rows = torch.arange(len(features) * samples, device=features.device)
        said = torch.full((len(rows), self.max_words + 1), words.pad_id, device=features.device)
        said[:, 0] = words.start_id
        state, context = decoder.start(features)  # (images, ...)
        logits, state = decoder.step(said[::samples, 0], state, context)  # the same for all samples
        logits = logits.float().repeat_interleave(samples, 0)
        state = tuple(each.float().repeat_interleave(samples, 0) for each in state)
        context = tuple(each.repeat_interleave(samples, 0) for each in context)
        for position in range(1, self.max_words + 1):
            chosen = draw(logits, never, greedy=self.greedy)
            said[rows, position] = chosen
            going = chosen != words.end_id
            rows, chosen = rows[going], chosen[going]
            if position == self.max_words or not len(rows):
                return said[:, : position + 1]
            if not going.all():
                state, context = (tuple(each[going] for each in part) for part in (state, context))
            logits, state = decoder.step(chosen, state, context)
            logits = logits.float()
        raise AssertionError("max_words is at least 1")


def greedy_captions(
    decoder: CaptionDecoder, vocabulary: Vocabulary, features: np.ndarray, max_words: int = 20
) -> list[str]:
    """Captions features, float32 (images, ...), greedily and without dropout."""
    decoder.eval()
    device = decoder.output.weight.device
    said = Sampler(vocabulary, max_words, greedy=True).say(decoder, torch.from_numpy(features).to(device))
    return [vocabulary.decode(row) for row in said.tolist()]
