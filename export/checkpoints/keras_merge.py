"""The "merge" captioner of Keras (Tanti et al. 2018) that most notebooks on Flickr8k have.

A dense map of the image's vector is added to what an LSTM read of the words so far; two more dense layers score the
next word. Its files: the model (.h5, .keras or .weights.h5) and the Tokenizer (pickle or JSON). The network that made
the vectors, mostly VGG16 or InceptionV3, is a file of its own.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from export.checkpoints.arithmetic import hard_sigmoid, lstm
from export.checkpoints.imported import Imported, Source, Splitting, StepDecoder, Tensors, Words, by_id
from export.checkpoints.keras_files import read_keras
from export.checkpoints.keras_layers import ACTIVATIONS, DENSE, parts_of, settings_of, weights_of
from export.checkpoints.keras_networks import Network, network
from export.checkpoints.pickles import Record, read_pickle
from export.checkpoints.states import require_none
from export.errors import ExportError
from training.files import read_json

LAYOUT = "a Keras merge captioner"
USUAL = {4096: "vgg16"}  # the network by the length of its vectors, where only one has it
START, END = "startseq", "endseq"


class Decoder(StepDecoder):
    """The state is the LSTM's hidden state and cell, (rows, units) each; the context is the image, (batch, units)."""

    def __init__(self, weights: Mapping[str, np.ndarray], image: str, hidden: str, gate: str) -> None:
        """weights: by Keras's names with the part before them. image, hidden, gate: names of activations."""
        super().__init__()
        self.embedding = nn.Embedding(*weights["embedding.embeddings"].shape)
        self.embedding.load_state_dict({"weight": _torch(weights["embedding.embeddings"])})
        self.lstm = nn.LSTMCell(self.embedding.embedding_dim, len(weights["lstm.recurrent_kernel"]))
        self.lstm.load_state_dict(
            {
                "weight_ih": _torch(weights["lstm.kernel"].T),  # Keras's gates have PyTorch's order
                "weight_hh": _torch(weights["lstm.recurrent_kernel"].T),
                "bias_ih": _torch(weights["lstm.bias"]),
                "bias_hh": torch.zeros_like(self.lstm.bias_hh),
            }
        )
        self.image, self.hidden, self.output = (_dense(weights, part) for part in DENSE)
        self.of_image, self.of_hidden = ACTIVATIONS[image], ACTIVATIONS[hidden]
        self.gate = hard_sigmoid if gate == "hard_sigmoid" else torch.sigmoid

    def start(self, features: Tensor) -> tuple[Tensors, Tensors]:
        """Turns features (batch, feature_size) into a state of zeros and the image's part of the sum."""
        image = self.of_image(self.image(features))
        zeros = torch.zeros_like(image)
        return (zeros, zeros), (image,)

    def step(self, token_ids: Tensor, state: Tensors, context: Tensors) -> tuple[Tensor, Tensors]:
        """Reads a word per row, int64 (rows,); returns logits (rows, words) and the next state."""
        (hidden, cell), (image,) = state, context
        sums = nn.functional.linear(self.embedding(token_ids), self.lstm.weight_ih, self.lstm.bias_ih)
        hidden, cell = lstm(sums + nn.functional.linear(hidden, self.lstm.weight_hh), cell, self.gate)
        return self.output(self.of_hidden(self.hidden(image + hidden))), (hidden, cell)


def read(source: Source) -> Imported:
    """Reads a model, its tokenizer and the weights of its network. Raises ExportError that lists all faults."""
    file = read_keras(source.checkpoint)
    parts, faults = parts_of(file)
    weights, shape_faults = weights_of(parts)
    settings, setting_faults = settings_of(parts, file)
    words, word_faults = _words(source.vocabulary, weights.get("embedding.embeddings"))
    faults += shape_faults + setting_faults + word_faults
    require_none(faults, f"{source.checkpoint} with {source.vocabulary}", LAYOUT)
    decoder = Decoder(weights, *settings)
    features, units = decoder.image.in_features, decoder.lstm.hidden_size
    seen = _network(source, features)
    return Imported(
        encoder=seen.module.requires_grad_(False).eval(),
        decoder=decoder.requires_grad_(False).eval(),
        words=words,
        image=source.image(seen.side, seen.side, seen.mean, seen.std, "nearest"),  # load_img's default
        origin=f"{LAYOUT}, vectors of {features} numbers, LSTM of {units} units",
    )


def _words(path: Path, embeddings: np.ndarray | None) -> tuple[Words, list[str]]:
    """Reads a Tokenizer from its pickle or its JSON; id 0 fills up."""
    if path.suffix == ".json":
        fields = _object(_object(read_json(path, ExportError)).get("config"))
    else:
        tokenizer = read_pickle(path, ("Tokenizer",), "tokenizer")
        fields = tokenizer.fields if isinstance(tokenizer, Record) else {}
    ids = _object(fields.get("word_index"))
    if not ids:
        raise ExportError(f"{path} is not a Tokenizer of Keras: it has no word_index")
    if limit := fields.get("num_words"):
        ids = {word: i for word, i in ids.items() if i < limit}
    words, faults = by_id(ids, {0: "<pad>"})
    faults += [f"the tokenizer has no word {word}" for word in (START, END) if word not in ids]
    if embeddings is not None and len(words) != len(embeddings):
        faults.append(f"the tokenizer has {len(words)} words, the padding included, the model {len(embeddings)}")
    filters = re.escape(fields.get("filters") or "")
    splitting = Splitting(word=rf"[^\s{filters}]+", lower=bool(fields.get("lower", True)))
    unknown = fields.get("oov_token")
    unk = ids.get(unknown) if isinstance(unknown, str) else None
    return Words(words, ids.get(START, 0), ids.get(END, 0), 0, unk, splitting), faults


def _object(value: Any) -> dict[str, Any]:
    """A JSON object, or its text, which to_json writes inside of JSON; empty if it is neither."""
    try:
        value = json.loads(value) if isinstance(value, str) else value
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _network(source: Source, features: int) -> Network:
    name = source.encoder or USUAL.get(features)
    if name is None:
        raise ExportError(
            f"the model reads vectors of {features} numbers, which several networks make: say which with --encoder"
        )
    if source.encoder_weights is None:
        raise ExportError(
            f"models of Keras do not contain the network that made the vectors: pass Keras's weights of {name} with "
            "--encoder-weights (Keras keeps them in ~/.keras/models)"
        )
    found = network(name, source.encoder_weights)
    if found.features != features:
        raise ExportError(f"{name} makes vectors of {found.features} numbers, the model reads {features}")
    if source.size not in (None, (found.side, found.side)):
        raise ExportError(f"{name} of Keras reads {found.side} x {found.side} pixels, which --size cannot change")
    return found


def _dense(weights: Mapping[str, np.ndarray], part: str) -> nn.Linear:
    kernel = _torch(weights[f"{part}.kernel"].T)
    layer = nn.Linear(kernel.shape[1], kernel.shape[0])
    layer.load_state_dict({"weight": kernel, "bias": _torch(weights[f"{part}.bias"])})
    return layer


def _torch(array: np.ndarray) -> Tensor:
    return torch.from_numpy(np.array(array, dtype=np.float32))
