"""The networks of ruotianluo's ImageCaptioning.pytorch: fc, newfc and att2in2 (Rennie et al. 2017). Reads no files."""

from typing import Any

import torch
from torch import Tensor, nn

from export.checkpoints.arithmetic import attend, flat, maxout_lstm
from export.checkpoints.imported import StepDecoder, Tensors
from export.checkpoints.resnets import Grid

PLACES = 14  # the grid's height and width
IMAGE_NAMES = {"fc": "img_embed", "newfc": "fc_embed"}
CORE_NAMES = {"fc": "core", "newfc": "_core"}


class Encoder(nn.Module):
    """A ResNet's last grid, brought to 14 x 14 places by averaging, or averaged to one vector."""

    def __init__(self, network: nn.Module, grid: tuple[int, int] | None) -> None:
        super().__init__()
        self.resnet = network
        self.pool = Grid(PLACES, grid) if grid else None

    def forward(self, pixels: Tensor) -> Tensor:
        """Turns normalised pixels into features (batch, 14, 14, channels) or (batch, channels)."""
        planes: Tensor = self.resnet(pixels)
        pooled: Tensor = planes.mean((2, 3)) if self.pool is None else self.pool(planes)
        return pooled


class Core(nn.Module):
    """The weights of a maxout LSTM: three gates and two candidates from the word and the hidden state."""

    def __init__(self, embedding: int, units: int) -> None:
        super().__init__()
        self.i2h = nn.Linear(embedding, 5 * units)
        self.h2h = nn.Linear(units, 5 * units)

    def sums(self, words: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the sums of the gates (rows, 3 * units) and of the candidates (rows, 2 * units)."""
        sums = self.i2h(words) + self.h2h(hidden)
        units = hidden.shape[1]
        return sums[:, : 3 * units], sums[:, 3 * units :]


class FcDecoder(StepDecoder):
    """A maxout LSTM that reads the image as its first word. The state is hidden and cell; there is no context."""

    def __init__(self, kind: str, words: int, features: int, embedding: int, units: int) -> None:
        """kind: fc or newfc, which are the same network under other names."""
        super().__init__()
        self.kind = kind
        self.features = features
        self.add_module(IMAGE_NAMES[kind], nn.Linear(features, embedding))
        self.add_module(CORE_NAMES[kind], Core(embedding, units))
        self.embed = nn.Embedding(words, embedding)
        self.logit = nn.Linear(units, words)

    def start(self, features: Tensor) -> tuple[Tensors, Tensors]:
        """Reads the image: features (batch, channels) to hidden and cell (batch, units)."""
        zeros = features.new_zeros(features.shape[0], self.logit.in_features)
        return self._read(self.get_submodule(IMAGE_NAMES[self.kind])(features), zeros, zeros), ()

    def step(self, token_ids: Tensor, state: Tensors, context: Tensors) -> tuple[Tensor, Tensors]:
        """Reads a word per row, int64 (rows,); returns logits (rows, words) and the next state."""
        state = self._read(self.embed(token_ids), *state)
        return self.logit(state[0]), state

    def _read(self, inputs: Tensor, hidden: Tensor, cell: Tensor) -> Tensors:
        core: Any = self.get_submodule(CORE_NAMES[self.kind])
        gates, candidates = core.sums(inputs, hidden)
        return maxout_lstm(gates, candidates, cell)


class AttentionCore(Core):
    """A maxout LSTM whose candidates also see what it attends to."""

    def __init__(self, embedding: int, units: int, attention: int) -> None:
        super().__init__(embedding, units)
        self.a2c = nn.Linear(units, 2 * units)
        self.attention = nn.ModuleDict({"h2att": nn.Linear(units, attention), "alpha_net": nn.Linear(attention, 1)})


class AttentionDecoder(StepDecoder):
    """att2in2. The state is hidden and cell, (rows, units) each.

    The context is the embedded grid as a list of places, (batch, 196, units), and its part of the scores, (batch, 196,
    attention).
    """

    def __init__(self, words: int, features: int, embedding: int, units: int, attention: int, norms: int) -> None:
        """norms: how many normalisations the embedding of the grid has (the project's use_bn): 0, 1 or 2."""
        super().__init__()
        self.features = features
        dense: list[nn.Module] = [nn.Linear(features, units), nn.ReLU(), nn.Identity()]  # dropout has number 2
        first, last = [nn.BatchNorm1d(features)] * (norms > 0), [nn.BatchNorm1d(units)] * (norms > 1)
        self.att_embed = nn.Sequential(*first, *dense, *last)
        self.embed = nn.Sequential(nn.Embedding(words, embedding), nn.ReLU())
        self.ctx2att = nn.Linear(units, attention)
        self.core = AttentionCore(embedding, units, attention)
        self.logit = nn.Linear(units, words)

    def start(self, features: Tensor) -> tuple[Tensors, Tensors]:
        """Turns features (batch, 14, 14, channels) into the first state, which is zero, and the context."""
        places = flat(features)
        embedded = self.att_embed(places.flatten(0, 1)).reshape(*places.shape[:2], -1)
        zeros = features.new_zeros(features.shape[0], self.logit.in_features)
        return (zeros, zeros), (embedded, self.ctx2att(embedded))

    def step(self, token_ids: Tensor, state: Tensors, context: Tensors) -> tuple[Tensor, Tensors]:
        """Reads a word per row, int64 (rows,); returns logits (rows, words) and the next state."""
        (hidden, cell), (places, projected) = state, context
        looking = torch.tanh(projected + self.core.attention["h2att"](hidden).unsqueeze(1))  # (rows, 196, attention)
        seen = attend(self.core.attention["alpha_net"](looking).squeeze(2), places)  # (rows, units)
        gates, candidates = self.core.sums(self.embed(token_ids), hidden)
        hidden, cell = maxout_lstm(gates, candidates + self.core.a2c(seen), cell)
        return self.logit(hidden), (hidden, cell)
