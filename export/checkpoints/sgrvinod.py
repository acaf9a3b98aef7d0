"""sgrvinod's a-PyTorch-Tutorial-to-Image-Captioning: soft attention over a ResNet's grid (Xu et al. 2015).

Its files: a checkpoint that contains the encoder and the decoder as whole pickled modules, and a word map in JSON.
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from export.checkpoints.arithmetic import attend, flat, lstm
from export.checkpoints.imported import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    KARPATHY,
    Imported,
    Source,
    StepDecoder,
    Tensors,
    Words,
    by_id,
)
from export.checkpoints.modules import read_modules, state_of
from export.checkpoints.resnets import NUMBERED, Grid, body, build, grid_size
from export.checkpoints.states import State, load, misfits, plain, require_none, size
from export.errors import ExportError
from training.files import read_json

LAYOUT = "sgrvinod's image captioning tutorial"
PLACES = 14  # the grid's height and width
SPECIAL = ("<pad>", "<start>", "<end>", "<unk>")


class Encoder(nn.Module):
    """A ResNet's last grid, brought to 14 x 14 places by averaging."""

    def __init__(self, network: nn.Module, grid: tuple[int, int]) -> None:
        super().__init__()
        self.resnet = network
        self.pool = Grid(PLACES, grid)

    def forward(self, pixels: Tensor) -> Tensor:
        """Turns normalised pixels (batch, 3, height, width) into features (batch, 14, 14, channels)."""
        features: Tensor = self.pool(self.resnet(pixels))
        return features


class Attention(nn.Module):
    """The weights of the attention network: scores = full(relu(encoder(place) + decoder(hidden)))."""

    def __init__(self, channels: int, units: int, size: int) -> None:
        super().__init__()
        self.encoder_att = nn.Linear(channels, size)
        self.decoder_att = nn.Linear(units, size)
        self.full_att = nn.Linear(size, 1)


class Decoder(StepDecoder):
    """An LSTM that looks at the grid before each word. The state is hidden and cell, (rows, units) each.

    The context is the grid as a list of places, (batch, 196, channels), and its part of the scores, (batch, 196, size).
    """

    def __init__(self, words: int, embedding: int, channels: int, units: int, attention: int) -> None:
        super().__init__()
        self.attention = Attention(channels, units, attention)
        self.embedding = nn.Embedding(words, embedding)
        self.decode_step = nn.LSTMCell(embedding + channels, units)
        self.init_h = nn.Linear(channels, units)
        self.init_c = nn.Linear(channels, units)
        self.f_beta = nn.Linear(units, channels)
        self.fc = nn.Linear(units, words)

    def start(self, features: Tensor) -> tuple[Tensors, Tensors]:
        """Turns features (batch, 14, 14, channels) into the first state and the context."""
        places = flat(features)
        mean = places.mean(1)
        return (self.init_h(mean), self.init_c(mean)), (places, self.attention.encoder_att(places))

    def step(self, token_ids: Tensor, state: Tensors, context: Tensors) -> tuple[Tensor, Tensors]:
        """Reads a word per row, int64 (rows,); returns logits (rows, words) and the next state."""
        (hidden, cell), (places, projected) = state, context
        looking = torch.relu(projected + self.attention.decoder_att(hidden).unsqueeze(1))  # (rows, 196, size)
        seen = attend(self.attention.full_att(looking).squeeze(2), places)  # (rows, channels)
        seen = torch.sigmoid(self.f_beta(hidden)) * seen
        read, unit = torch.cat((self.embedding(token_ids), seen), dim=1), self.decode_step
        sums = functional.linear(read, unit.weight_ih, unit.bias_ih + unit.bias_hh)
        hidden, cell = lstm(sums + functional.linear(hidden, unit.weight_hh), cell)
        return self.fc(hidden), (hidden, cell)


def read(source: Source) -> Imported:
    """Reads a checkpoint and its word map. Raises ExportError that lists all faults."""
    words, faults = _words(source.vocabulary)
    encoder_state, state = _states(source.checkpoint)
    channels = size(state, ("init_h.weight", 1), ("attention.encoder_att.weight", 1), ("f_beta.weight", 0))
    decoder = Decoder(
        words=size(state, ("embedding.weight", 0), ("fc.weight", 0), ("fc.bias", 0)),
        embedding=size(state, ("embedding.weight", 1)),
        channels=channels,
        units=size(state, ("decode_step.weight_hh", 1), ("fc.weight", 1)),
        attention=size(state, ("attention.full_att.weight", 1), ("attention.encoder_att.weight", 0)),
    )
    image = source.image(256, 256, IMAGENET_MEAN, IMAGENET_STD, "bilinear")
    network = build(encoder_state, "resnet101", NUMBERED)
    parts = body(network)
    encoder = Encoder(parts, grid_size(parts, image.height, image.width))
    faults += misfits(encoder, encoder_state, "encoder.") + misfits(decoder, state, "decoder.")
    if network.fc.in_features != channels:
        faults.append(f"the encoder's grid has {network.fc.in_features} channels, the decoder reads {channels}")
    if len(words.words) != decoder.embedding.num_embeddings:
        faults.append(f"the word map has {len(words.words)} words, the decoder {decoder.embedding.num_embeddings}")
    require_none(faults, f"{source.checkpoint} with {source.vocabulary}", LAYOUT)
    return Imported(
        encoder=load(encoder, encoder_state),
        decoder=load(decoder, state),
        words=words,
        image=image,
        origin=f"{LAYOUT}, soft attention over {channels} channels, LSTM of {decoder.decode_step.hidden_size} units",
    )


def _states(path: Path) -> tuple[State, State]:
    """Returns the state dicts of the encoder and the decoder."""
    content = read_modules(path)
    content = content if isinstance(content, Mapping) else {}
    encoder, decoder = _part(content, "encoder"), _part(content, "decoder")
    absent = [part for part, state in (("encoder", encoder), ("decoder", decoder)) if not state]
    if absent:
        raise ExportError(f"{path} does not have the layout of {LAYOUT}: it contains no {' and no '.join(absent)}")
    return encoder, decoder


def _part(content: Mapping[object, object], part: str) -> State:
    """Finds a module, a state dict under its name, or the names that begin with it in one state dict for both."""
    for key in (part, f"{part}_state_dict"):
        if state := state_of(content.get(key)):
            return state
    state = {name: value for name, value in content.items() if isinstance(name, str) and isinstance(value, Tensor)}
    return {name.removeprefix(f"{part}."): value for name, value in plain(state).items() if name.startswith(f"{part}.")}


def _words(path: Path) -> tuple[Words, list[str]]:
    ids = read_json(path, ExportError)
    if not isinstance(ids, dict):
        raise ExportError(f"{path} is not a word map: it must be a JSON object of words and their ids")
    words, faults = by_id(ids)
    faults += [f"the word map has no {word}" for word in SPECIAL if word not in ids]
    pad, start, end, unk = (ids.get(word, 0) for word in SPECIAL)
    return Words(words, start, end, pad, unk, KARPATHY), faults
