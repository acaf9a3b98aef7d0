"""Sentences drawn from a decoder, many at once. Knows no rewards, no training and no words but by id."""

from collections.abc import Sequence

import torch
from torch import Tensor


def draw(logits: Tensor, never: Sequence[int], temperature: float = 1.0) -> Tensor:
    """Draws a word a row from softmax(logits / temperature): int64 (rows,); those of `never` have no chance.

    By the Gumbel-max trick, which needs no sum over the vocabulary. logits float32 (rows, vocabulary) are overwritten.
    """
    logits[:, never] = -torch.inf
    noise = torch.empty_like(logits).exponential_().log_()
    return (logits / temperature - noise).argmax(dim=-1)
