"""A caption decoder with soft attention: before each word it looks at the cells of the image again.

Xu et al. 2015 (Show, Attend and Tell, arXiv:1502.03044), with their gate and deep output. Everything that the plain
decoder has keeps its name and shape, and what is added contributes zero at first, before training. Knows nothing of
images, words, training or files.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from training.models.decoder import CaptionDecoder, DecoderConfig, Tensors, turn


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionConfig(DecoderConfig):
    """All sizes of the decoder; `feature_size` is that of a cell. Raises ValueError naming the invalid field."""

    kind: ClassVar[str] = "attention"
    height: int  # cells
    width: int
    attention_size: int = 256  # numbers in a cell's key
    value_size: int = 256  # numbers in a cell's value

    @property
    def feature_shape(self) -> tuple[int, ...]:
        """See DecoderConfig."""
        return self.height, self.width, self.feature_size

    def __post_init__(self) -> None:
        DecoderConfig.__post_init__(self)  # super() does not work in a dataclass with slots
        for name in ("height", "width", "attention_size", "value_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, but it is {getattr(self, name)}")


class Attention(nn.Module):
    """What a decoder with attention has in addition to a plain one."""

    def __init__(self, config: AttentionConfig) -> None:
        super().__init__()
        self.keys = nn.Linear(config.feature_size, config.attention_size)
        self.values = nn.Linear(config.feature_size, config.value_size)
        self.query = nn.Linear(config.units, config.attention_size, bias=False)  # the keys have a bias
        self.energy = nn.Linear(config.attention_size, 1, bias=False)  # softmax ignores a bias
        self.gate = nn.Linear(config.units, config.value_size)
        self.to_gates = nn.Linear(config.value_size, 4 * config.units, bias=False)
        self.to_logits = nn.Linear(config.value_size, config.logit_hidden, bias=False)
        nn.init.zeros_(self.to_gates.weight)
        nn.init.zeros_(self.to_logits.weight)

    def forward(self, hidden: Tensor, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Returns what is seen, (rows, value_size), and the weights of the cells, (rows, cells), whose sum is 1.

        Takes hidden (rows, units), keys (rows, cells, attention_size) and values (rows, cells, value_size).
        """
        energies = self.energy(torch.tanh(keys + self.query(hidden)[:, None]))[..., 0]  # (rows, cells)
        weights = torch.softmax(energies, dim=1)
        mean = torch.bmm(weights[:, None], values)[:, 0]  # (rows, value_size)
        return mean * torch.sigmoid(self.gate(hidden)), weights


class AttentionDecoder(CaptionDecoder):
    """The mean over the grid starts the LSTM; each step weighs the cells by its hidden state, and reads their sum."""

    config: AttentionConfig
    context_names = "keys", "values"
    """What exported graphs call the parts of the context."""

    def __init__(self, config: AttentionConfig) -> None:
        super().__init__(config)
        self.attention = Attention(config)

    def start(self, features: Tensor) -> tuple[Tensors, Tensors]:
        """Turns a grid (batch, height, width, feature_size) into state and context.

        The state is the plain decoder's for the mean over the grid; the context is each cell's key, (batch, cells,
        attention_size), and value, (batch, cells, value_size).
        """
        state, _ = super().start(features.mean(dim=(1, 2)))
        if self.training and self.dropout.p:
            # a feature is dropped in all cells at once: else attention learns the training photographs by heart
            features = features * self.dropout(torch.ones_like(features[:, :1, :1]))
        cells = features.flatten(0, 2)  # (batch * cells, feature_size): plain matrix products, as an INT8 graph needs
        count = self.config.height * self.config.width
        keys, values = (layer(cells) for layer in (self.attention.keys, self.attention.values))
        return state, (keys.unflatten(0, (-1, count)), values.unflatten(0, (-1, count)))

    def read(self, token_ids: Tensor, state: Tensors, context: Tensors, keep: Tensor | None = None) -> Tensor:
        """See CaptionDecoder.read."""
        outputs, looks = [], []
        for word in self._words(token_ids).unbind(dim=1):  # (batch, 4 * units)
            state, look, _ = self._turn(word, state, context)
            outputs.append(state[0])
            looks.append(look)
        seen = torch.stack(outputs, dim=1), torch.stack(looks, dim=1)  # (batch, length, units or value_size)
        return self._scores(*(seen if keep is None else (each[keep] for each in seen)))

    def step(self, token_ids: Tensor, state: Tensors, context: Tensors) -> tuple[Tensor, Tensors]:
        """See CaptionDecoder.step."""
        logits, state, _ = self.step_with_attention(token_ids, state, context)
        return logits, state

    def step_with_attention(
        self, token_ids: Tensor, state: Tensors, context: Tensors
    ) -> tuple[Tensor, Tensors, Tensor]:
        """Like `step`; also returns how much each cell weighs: (rows, height, width), whose sum is 1."""
        state, look, weights = self._turn(self._words(token_ids), state, context)
        return self._scores(state[0], look), state, weights.reshape(-1, self.config.height, self.config.width)

    def _words(self, token_ids: Tensor) -> Tensor:
        """Returns the words' share of the sums at the LSTM's gates: (..., 4 * units)."""
        input_weight, _, input_bias, hidden_bias = self.lstm.all_weights[0]
        return functional.linear(self.dropout(self.embedding(token_ids)), input_weight, input_bias + hidden_bias)

    def _turn(self, word: Tensor, state: Tensors, context: Tensors) -> tuple[Tensors, Tensor, Tensor]:
        """Returns the next state, what is seen before it, (rows, value_size), and the weights of the cells.

        word: from `_words`, (rows, 4 * units).
        """
        hidden, cell = state
        look, weights = self.attention(hidden, *context)
        look = self.dropout(look)
        gates = word + functional.linear(hidden, self.lstm.all_weights[0][1]) + self.attention.to_gates(look)
        return turn(gates, cell), look, weights

    def _scores(self, outputs: Tensor, looks: Tensor) -> Tensor:
        """Maps LSTM outputs (..., units) and what was seen (..., value_size) to logits (..., vocabulary)."""
        mixed = self.logit_hidden(self.dropout(outputs)) + self.attention.to_logits(looks)
        logits: Tensor = self.output(functional.elu(mixed))
        return logits
