"""The arithmetic that several projects share: LSTM steps and attention over a grid. Holds no weights."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional


def lstm(sums: Tensor, cell: Tensor, gate: Callable[[Tensor], Tensor] = torch.sigmoid) -> tuple[Tensor, Tensor]:
    """One step of an LSTM (Hochreiter and Schmidhuber 1997, with a forget gate).

    sums: (rows, 4 * units), weights times input and hidden state plus biases: input gate, forget gate, candidate,
    output gate. cell: (rows, units). Returns the next hidden state and cell.
    """
    admit, forget, candidate, emit = sums.chunk(4, dim=1)
    cell = gate(forget) * cell + gate(admit) * torch.tanh(candidate)
    return gate(emit) * torch.tanh(cell), cell


def maxout_lstm(gates: Tensor, candidates: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
    """One step of an LSTM whose candidate is the larger of two linear maps, without tanh (Rennie et al. 2017).

    gates: (rows, 3 * units): input, forget, output. candidates: (rows, 2 * units). cell: (rows, units).
    """
    admit, forget, emit = torch.sigmoid(gates).chunk(3, dim=1)
    first, second = candidates.chunk(2, dim=1)
    cell = forget * cell + admit * torch.maximum(first, second)
    return emit * torch.tanh(cell), cell


def attend(scores: Tensor, grid: Tensor) -> Tensor:
    """The mean of a grid (rows, places, channels), weighted by the softmax of the scores (rows, places)."""
    return torch.matmul(functional.softmax(scores, dim=1).unsqueeze(1), grid).squeeze(1)


def flat(grid: Tensor) -> Tensor:
    """Turns a grid (batch, height, width, channels) into a list of places (batch, height * width, channels)."""
    return grid.flatten(1, 2)


def hard_sigmoid(values: Tensor) -> Tensor:
    """Keras 1 and 2's straight line in the place of a sigmoid: 0.2 x + 0.5 between 0 and 1."""
    return torch.clamp(0.2 * values + 0.5, 0, 1)
