"""The image captioning of yunjey's pytorch-tutorial: a ResNet, and an LSTM that reads the image as its first word.

Its files: the state dicts encoder-N.ckpt and decoder-N.ckpt, and vocab.pkl, a pickled object of its class Vocabulary.
"""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn
from torch.nn import functional

from export.checkpoints.arithmetic import lstm
from export.checkpoints.imported import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    Imported,
    Source,
    Splitting,
    StepDecoder,
    Tensors,
    Words,
    by_id,
)
from export.checkpoints.pickles import Record, read_pickle
from export.checkpoints.resnets import NUMBERED, body, build
from export.checkpoints.states import State, count, load, misfits, read_state, require_none, size
from export.errors import ExportError

LAYOUT = "yunjey's pytorch-tutorial"
SPECIAL = ("<pad>", "<start>", "<end>", "<unk>")
NLTK = Splitting(r"\w+(?=n't)|n't|'\w+|\w+(?:-\w+)*|[^\w\s]")
"""Nearly NLTK's word_tokenize, which the tutorial uses: punctuation and clitics are words of their own."""


class Encoder(nn.Module):
    """A ResNet, averaged over its grid, then a linear map and a normalisation to the size of a word's embedding."""

    def __init__(self, network: nn.Module, channels: int, embedding: int) -> None:
        super().__init__()
        self.resnet = network
        self.linear = nn.Linear(channels, embedding)
        self.bn = nn.BatchNorm1d(embedding)

    def forward(self, pixels: Tensor) -> Tensor:
        """Turns normalised pixels (batch, 3, height, width) into features (batch, embedding)."""
        features: Tensor = self.bn(self.linear(self.resnet(pixels).mean((2, 3))))
        return features


class Decoder(StepDecoder):
    """An LSTM of one or more layers. The state is a hidden state and a cell per layer; there is no context."""

    def __init__(self, words: int, embedding: int, units: int, layers: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(words, embedding)
        self.lstm = nn.LSTM(embedding, units, layers, batch_first=True)
        self.linear = nn.Linear(units, words)

    def start(self, features: Tensor) -> tuple[Tensors, Tensors]:
        """Reads the image as the first word: features (batch, embedding) to states (batch, units)."""
        zeros = features.new_zeros(features.shape[0], self.lstm.hidden_size)
        return self._read(features, (zeros,) * (2 * self.lstm.num_layers)), ()

    def step(self, token_ids: Tensor, state: Tensors, context: Tensors) -> tuple[Tensor, Tensors]:
        """Reads a word per row, int64 (rows,); returns logits (rows, words) and the next state."""
        state = self._read(self.embed(token_ids), state)
        return self.linear(state[-2]), state

    def _read(self, inputs: Tensor, state: Tensors) -> Tensors:
        following: list[Tensor] = []
        pairs = zip(state[::2], state[1::2], strict=True)
        for (hidden, cell), (from_input, from_hidden, input_bias, hidden_bias) in zip(
            pairs, self.lstm.all_weights, strict=True
        ):
            sums = functional.linear(inputs, from_input, input_bias + hidden_bias)
            inputs, cell = lstm(sums + functional.linear(hidden, from_hidden), cell)
            following += [inputs, cell]
        return tuple(following)


def read(source: Source) -> Imported:
    """Reads the encoder, decoder and vocabulary of one training run. Raises ExportError that lists all faults."""
    if source.encoder_weights is None:
        raise ExportError("this layout has two checkpoints: pass the encoder's with --encoder-weights")
    words, faults = _words(source)
    state = read_state(source.checkpoint)
    decoder = Decoder(
        words=size(state, ("embed.weight", 0), ("linear.weight", 0), ("linear.bias", 0)),
        embedding=size(state, ("embed.weight", 1), ("lstm.weight_ih_l0", 1)),
        units=size(state, ("lstm.weight_hh_l0", 1), ("linear.weight", 1)),
        layers=max(1, count(state, "lstm.weight_ih_l")),
    )
    faults += misfits(decoder, state, "decoder.")
    encoder, encoder_state = _encoder(source.encoder_weights, decoder.lstm.input_size)
    faults += misfits(encoder, encoder_state, "encoder.")
    if len(words.words) != decoder.embed.num_embeddings:
        faults.append(f"the vocabulary has {len(words.words)} words, the decoder {decoder.embed.num_embeddings}")
    require_none(faults, f"{source.checkpoint} with {source.encoder_weights} and {source.vocabulary}", LAYOUT)
    return Imported(
        encoder=load(encoder, encoder_state),
        decoder=load(decoder, state),
        words=words,
        image=source.image(224, 224, IMAGENET_MEAN, IMAGENET_STD, "lanczos"),
        origin=f"{LAYOUT}, {decoder.lstm.num_layers} LSTM layers of {decoder.lstm.hidden_size} units",
    )


def _encoder(weights: str, embedding: int) -> tuple[Encoder, State]:
    state = read_state(Path(weights))
    network = build(state, "resnet152", NUMBERED)
    return Encoder(body(network), network.fc.in_features, embedding), state


def _words(source: Source) -> tuple[Words, list[str]]:
    """Reads the pickled Vocabulary, whose ids are in word2idx."""
    vocabulary = read_pickle(source.vocabulary, ("Vocabulary",), "vocabulary")
    ids = vocabulary.fields.get("word2idx") if isinstance(vocabulary, Record) else vocabulary
    if not isinstance(ids, Mapping):
        raise ExportError(f"{source.vocabulary} is not this project's vocabulary: it has no word2idx")
    words, faults = by_id(ids)
    faults += [f"the vocabulary has no word {word}" for word in SPECIAL if word not in ids]
    pad, start, end, unk = (ids.get(word, 0) for word in SPECIAL)
    return Words(words, start, end, pad, unk, NLTK), faults
