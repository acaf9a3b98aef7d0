"""Exports a captioner of one's own and captions with it: python examples/bring_your_own.py BUNDLE IMAGE…"""

import sys
from pathlib import Path

import torch
from torch import Tensor, nn

from engine import Captioner, Greedy
from export import ImageSpec, Vocabulary, Words, export_modules

Tensors = tuple[Tensor, ...]


class Encoder(nn.Module):
    """Normalised pixels (batch, 3, 64, 64) to a grid of features (batch, 8, 8, 32)."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 16, 5, stride=4, padding=2), nn.Conv2d(16, 32, 4, stride=2, padding=1)

    def forward(self, pixels: Tensor) -> Tensor:
        """Runs the layers; channels come last."""
        return torch.relu(self.second(torch.relu(self.first(pixels)))).permute(0, 2, 3, 1)


class Decoder(nn.Module):
    """A GRU that reads the word before and the part of the grid that it looks at."""

    def __init__(self, words: int, units: int = 48) -> None:
        super().__init__()
        self.embedding, self.output = nn.Embedding(words, 32), nn.Linear(units, words)
        self.first, self.query, self.gru = nn.Linear(32, units), nn.Linear(units, 32), nn.GRUCell(64, units)

    def start(self, features: Tensor) -> tuple[Tensors, Tensors]:
        """Returns the first state and the context, which stays the same at every step."""
        cells = features.flatten(1, 2)  # (batch, 64, 32)
        return (torch.tanh(self.first(cells.mean(dim=1))),), (cells,)

    def step_with_attention(
        self, token_ids: Tensor, state: Tensors, context: Tensors
    ) -> tuple[Tensor, Tensors, Tensor]:
        """Reads a word; returns logits, the next state and where it looked. Without attention, `step` is enough."""
        (hidden,), (cells,) = state, context
        weights = torch.softmax((cells * self.query(hidden)[:, None]).sum(dim=2), dim=1)  # (rows, 64)
        seen = (weights[:, :, None] * cells).sum(dim=1)
        hidden = self.gru(torch.cat([self.embedding(token_ids), seen], dim=1), hidden)
        return self.output(hidden), (hidden,), weights.reshape(-1, 8, 8)

    def step(self, token_ids: Tensor, state: Tensors, context: Tensors) -> tuple[Tensor, Tensors]:
        """Does the same without the map."""
        return self.step_with_attention(token_ids, state, context)[:2]


if len(sys.argv) < 3:
    sys.exit("usage: python examples/bring_your_own.py BUNDLE IMAGE…")
torch.manual_seed(0)  # in place of your own weights
words = ("<start>", "<end>", "<unk>", "a", "red", "blue", "dog", "cat", "runs", "sleeps", "here", ".")
rules = Words(start="<start>", end="<end>", pad="<end>", unk="<unk>", pattern=r"\w+|\.", lowercase=True)
image = ImageSpec(height=64, width=64, mean=(124, 116, 104), std=(58, 57, 57), resize="crop", resample="bilinear")
export_modules(Encoder(), Decoder(len(words)), Vocabulary(words, rules), image, Path(sys.argv[1]), overwrite=True)
captioner = Captioner(sys.argv[1])
for path in sys.argv[2:]:
    print(path, captioner.caption([path], Greedy(max_length=6))[0].text, sep="\t")
