"""The caption decoder: image features in, word logits out. Knows nothing of images, words, training or files."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

Tensors = tuple[Tensor, ...]


@dataclass(frozen=True, slots=True)
class DecoderConfig:
    """All sizes of the decoder. Raises ValueError naming the field with an invalid value."""

    kind: ClassVar[str] = "lstm"
    feature_size: int
    vocabulary_size: int
    pad_id: int
    bottleneck: int = 120
    units: int = 300
    embedding: int = 100
    logit_hidden: int = 120
    dropout: float = 0.0
    tied: bool = False

    @property
    def feature_shape(self) -> tuple[int, ...]:
        """Shape of the features that the decoder takes for an image."""
        return (self.feature_size,)

    def __post_init__(self) -> None:
        for name in ("feature_size", "vocabulary_size", "bottleneck", "units", "embedding", "logit_hidden"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, but it is {getattr(self, name)}")
        if not 0 <= self.pad_id < self.vocabulary_size:
            raise ValueError(
                f"pad_id must be an id of the vocabulary (0 to {self.vocabulary_size - 1}), not {self.pad_id}"
            )
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must be at least 0 and below 1, but it is {self.dropout}")
        if self.tied and self.logit_hidden != self.embedding:
            raise ValueError(
                f"tied embeddings need logit_hidden equal to embedding, but they are {self.logit_hidden} and "
                f"{self.embedding}: make them equal or leave the embeddings untied"
            )


class CaptionDecoder(nn.Module):
    """Features start an LSTM's hidden and cell state; each step reads a word and scores the next one."""

    state_names = "hidden", "cell"
    """What exported graphs call the parts of the state."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.config = config
        self.bottleneck = nn.Linear(config.feature_size, config.bottleneck)
        self.initial = nn.Linear(config.bottleneck, config.units)
        self.embedding = nn.Embedding(config.vocabulary_size, config.embedding, padding_idx=config.pad_id)
        self.lstm = nn.LSTM(config.embedding, config.units, batch_first=True)
        self.logit_hidden = nn.Linear(config.units, config.logit_hidden)
        self.output = nn.Linear(config.logit_hidden, config.vocabulary_size)
        self.dropout = nn.Dropout(config.dropout)
        if config.tied:  # with unit-variance rows the first logits would be far too large
            nn.init.normal_(self.embedding.weight, std=config.embedding**-0.5)
            self.output.weight = self.embedding.weight

    def start(self, features: Tensor) -> tuple[Tensors, Tensors]:
        """Turns features (batch, feature_size) into the first state: hidden and cell, each (batch, units).

        The second tuple is the context, which steps read and do not change; this decoder has none.
        """
        squeezed = functional.elu(self.bottleneck(self.dropout(features)))  # (batch, bottleneck)
        state = functional.elu(self.initial(squeezed))  # (batch, units)
        return (state, state), ()

    def forward(self, features: Tensor, token_ids: Tensor, keep: Tensor | None = None) -> Tensor:
        """Teacher forcing: scores the next word at every position of the sequence at once.

        Takes features (batch, feature_size) and token_ids int64 (batch, length). Returns logits (batch, length,
        vocabulary); with `keep`, bool (batch, length), only the logits of the kept positions, (kept, vocabulary).
        """
        return self.read(token_ids, *self.start(features), keep)

    def read(self, token_ids: Tensor, state: Tensors, context: Tensors, keep: Tensor | None = None) -> Tensor:
        """Like `forward`, from what `start` returned."""
        hidden, cell = state
        words = self.dropout(self.embedding(token_ids))  # (batch, length, embedding)
        outputs, _ = self.lstm(words, (hidden[None], cell[None]))  # (batch, length, units)
        return self._logits(outputs if keep is None else outputs[keep])

    def step(self, token_ids: Tensor, state: Tensors, context: Tensors) -> tuple[Tensor, Tensors]:
        """Reads one word per row: token_ids int64 (rows,); state and context as from `start`, one row for each.

        Returns logits (rows, vocabulary) and the next state. The same arithmetic as `forward`, written out so that it
        exports as plain matrix products.
        """
        hidden, cell = state
        words = self.dropout(self.embedding(token_ids))  # (rows, embedding)
        input_weight, hidden_weight, input_bias, hidden_bias = self.lstm.all_weights[0]
        gates = functional.linear(words, input_weight, input_bias + hidden_bias)
        gates = gates + functional.linear(hidden, hidden_weight)  # (rows, 4 * units)
        hidden, cell = turn(gates, cell)
        return self._logits(hidden), (hidden, cell)

    def _logits(self, outputs: Tensor) -> Tensor:
        """Maps LSTM outputs (..., units) to logits (..., vocabulary)."""
        logits: Tensor = self.output(functional.elu(self.logit_hidden(self.dropout(outputs))))
        return logits


def turn(gates: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
    """Returns an LSTM's next hidden and cell state, (rows, units), for the sums at its gates, (rows, 4 * units)."""
    admit, forget, candidate, emit = gates.chunk(4, dim=1)
    cell = torch.sigmoid(forget) * cell + torch.sigmoid(admit) * torch.tanh(candidate)
    return torch.sigmoid(emit) * torch.tanh(cell), cell
