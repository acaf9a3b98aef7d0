"""A small greedy and beam search over anything that scores the next words: a reference, or an imported decoder."""

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor

from export.checkpoints.imported import StepDecoder, Tensors, Words

Prefix = tuple[int, ...]
LONGEST = 9


class Scorer(Protocol):
    def __call__(self, prefixes: Sequence[Prefix], parents: Sequence[int]) -> Tensor:
        """Log-probabilities (rows, words) after prefixes that begin with start; parents: their rows one step ago."""
        ...


def by_prefix(next_log_probs: Callable[[Prefix], Tensor]) -> Scorer:
    """A scorer that keeps no state: a reference computes each sentence from its beginning."""
    return lambda prefixes, parents: torch.stack([next_log_probs(prefix) for prefix in prefixes])


class BySteps:
    """A scorer that drives a decoder's start and step, gathering state and context by parent row."""

    def __init__(self, decoder: StepDecoder, features: Tensor) -> None:
        self.decoder = decoder
        self.state, self.context = decoder.start(features)

    def __call__(self, prefixes: Sequence[Prefix], parents: Sequence[int]) -> Tensor:
        rows = torch.tensor(parents)
        state, self.context = _rows(self.state, rows), _rows(self.context, rows)
        logits, self.state = self.decoder.step(torch.tensor([p[-1] for p in prefixes]), state, self.context)
        return torch.log_softmax(logits, dim=1)


def _rows(tensors: Tensors, rows: Tensor) -> Tensors:
    return tuple(tensor[rows] for tensor in tensors)


def search(scorer: Scorer, words: Words, beams: int) -> list[tuple[Prefix, float]]:
    """Returns the best finished captions (ids without start and end) and their log-probabilities, best first."""
    live: list[tuple[Prefix, float]] = [((words.start,), 0.0)]
    parents = [0]
    done: list[tuple[Prefix, float]] = []
    for _ in range(LONGEST):
        log_probs = scorer([prefix for prefix, _ in live], parents).double()
        log_probs[:, sorted(words.never)] = -torch.inf
        totals = log_probs + torch.tensor([total for _, total in live], dtype=torch.float64)[:, None]
        best, places = totals.flatten().topk(min(2 * beams, int(torch.isfinite(totals).sum())))
        grown = [
            (divmod(place, totals.shape[1]), value) for value, place in zip(best.tolist(), places.tolist(), strict=True)
        ]
        done += [(live[row][0][1:], value) for (row, word), value in grown[:beams] if word == words.end]
        if len(done) >= beams:
            break
        kept = [((row, word), value) for (row, word), value in grown if word != words.end][:beams]
        parents = [row for (row, _), _ in kept]
        live = [((*live[row][0], word), value) for (row, word), value in kept]
    else:
        done += [(prefix[1:], value) for prefix, value in live]
    return sorted(done, key=lambda caption: -caption[1])[:beams]
