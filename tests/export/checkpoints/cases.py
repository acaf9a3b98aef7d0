"""A small random captioner in each layout: its files, and what its own project would compute from them."""

import json
import pickle
from argparse import Namespace
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from export.checkpoints.imported import Source
from tests.export.checkpoints import references
from tests.export.checkpoints.foreign import tokenizer_of, vocabulary_of, write_pickled_object, write_whole_modules
from tests.export.checkpoints.search import Prefix
from tests.export.checkpoints.tensors import (
    CHANNELS,
    SIZES,
    VGG_FEATURES,
    VGG_WIDTHS,
    keras_model,
    keras_vgg16,
    resnet,
    ruotianluo_model,
    sgrvinod_decoder,
    yunjey_decoder,
)

NAMES = ("a", "dog", "man", "on", "runs", "the", "red", "grass", "ball")  # with specials, as many as SIZES["words"]


@dataclass(frozen=True)
class Case:
    """layout: of LAYOUTS. features: pixels (batch, 3, h, w), float64, as the project normalises them, to features.

    next_log_probs: features of one image and a prefix that begins with start, to the log-probabilities of all words.
    """

    layout: str
    source: Source
    features: Callable[[Tensor], Tensor]
    next_log_probs: Callable[[Tensor, Prefix], Tensor]


def yunjey(folder: Path, layers: int = 1) -> Case:
    network, decoder = resnet(), yunjey_decoder(layers)
    torch.manual_seed(8)
    linear, norm = nn.Linear(CHANNELS, SIZES["embedding"]), nn.BatchNorm1d(SIZES["embedding"]).eval()
    nn.init.normal_(linear.weight, std=0.2)
    nn.init.uniform_(norm.running_var, 0.5, 1.5)  # type: ignore[arg-type]
    parts = nn.ModuleDict({"resnet": nn.Sequential(*list(network.children())[:-1]), "linear": linear, "bn": norm})
    torch.save(parts.state_dict(), folder / "encoder-5-3000.ckpt")
    torch.save(decoder, folder / "decoder-5-3000.ckpt")
    words = ["<pad>", "<start>", "<end>", "<unk>", *NAMES[:8]]
    write_pickled_object(folder / "vocab.pkl", "build_vocab", "Vocabulary", vocabulary_of(words))

    def features(pixels: Tensor) -> Tensor:
        double = parts.double()
        vector: Tensor = double["bn"](double["linear"](double["resnet"](pixels).flatten(1)))
        return vector

    source = Source(
        folder / "decoder-5-3000.ckpt", folder / "vocab.pkl", str(folder / "encoder-5-3000.ckpt"), size=(64, 96)
    )
    return Case("yunjey", source, features, partial(references.yunjey, decoder))


def sgrvinod(folder: Path, legacy: bool = False, parallel: bool = False) -> Case:
    parts, decoder = nn.Sequential(*list(resnet().children())[:-2]), sgrvinod_decoder()
    encoder = {f"resnet.{name}": tensor for name, tensor in parts.state_dict().items()}
    path = folder / "BEST_checkpoint.pth.tar"
    write_whole_modules(path, encoder, decoder, legacy=legacy, parallel=parallel)
    ids = {word: i for i, word in enumerate(NAMES[:8], 1)} | {"<unk>": 9, "<start>": 10, "<end>": 11, "<pad>": 0}
    (folder / "WORDMAP.json").write_text(json.dumps(ids))

    def features(pixels: Tensor) -> Tensor:
        pooled: Tensor = nn.AdaptiveAvgPool2d(14)(parts.double()(pixels))
        return pooled.permute(0, 2, 3, 1)

    source = Source(path, folder / "WORDMAP.json", size=(64, 96))
    return Case("sgrvinod", source, features, partial(references.sgrvinod, decoder))


def ruotianluo(folder: Path, kind: str = "fc", norms: int = 0) -> Case:
    network, model = resnet(), ruotianluo_model(kind, norms)
    torch.save(network.state_dict(), folder / "resnet101.pth")
    torch.save(model, folder / "model-best.pth")
    words = [*NAMES, "sky", "UNK"]
    options = {"caption_model": kind, "rnn_size": 8, "input_att_dir": "data/cocotalk_att", "use_box": 0}
    infos = {
        "opt": Namespace(**options),
        "vocab": {str(i): word for i, word in enumerate(words, 1)},
        "iter": 100,
        "best_val_score": np.float64(1.0),
        "loader_state_dict": {"train": {"index_list": [3, 1, 2], "iter_counter": 0}},
    }
    (folder / "infos-best.pkl").write_bytes(pickle.dumps(infos, protocol=2))

    def features(pixels: Tensor) -> Tensor:
        # Caffe's strides: the first convolution of a stage takes every second place, and so does the shortcut.
        caffe = network.double()
        grid: Tensor = caffe.bn1(caffe.conv1(pixels)).relu()
        grid = nn.functional.max_pool2d(grid, 3, 2, padding=0, ceil_mode=True)
        for i, stage in enumerate((caffe.layer1, caffe.layer2, caffe.layer3, caffe.layer4)):
            for block in stage:
                stride = 2 if i else 1
                inner = block.bn1(nn.functional.conv2d(grid, block.conv1.weight, stride=stride)).relu()
                inner = block.bn2(nn.functional.conv2d(inner, block.conv2.weight, padding=1)).relu()
                shortcut = block.downsample[1](nn.functional.conv2d(grid, block.downsample[0].weight, stride=stride))
                grid = (block.bn3(block.conv3(inner)) + shortcut).relu()
        if kind == "att2in2":
            return nn.functional.adaptive_avg_pool2d(grid, 14).permute(0, 2, 3, 1)
        return grid.mean((2, 3))

    source = Source(folder / "model-best.pth", folder / "infos-best.pkl", str(folder / "resnet101.pth"), size=(64, 96))
    reference = references.ruotianluo_att2in2 if kind == "att2in2" else references.ruotianluo_fc
    return Case("ruotianluo", source, features, partial(reference, model))


def keras_merge(folder: Path, file: str = "model.h5") -> Case:
    from tests.export.checkpoints import keras_writing

    model, vgg = keras_model(VGG_FEATURES), keras_vgg16()
    writers: dict[str, Callable[..., Any]] = {
        "model.h5": partial(keras_writing.write_model, layers=keras_writing.merge_layers()),
        "weights.h5": partial(keras_writing.write_model, layers=None),
        "model.weights.h5": keras_writing.write_weights_of_keras_3,
        "model.keras": partial(keras_writing.write_archive, layers=keras_writing.merge_layers()),
    }
    writers[file](folder / file, model)
    keras_writing.write_model(folder / "vgg16.h5", vgg, layers=None)
    words = [*NAMES, "startseq", "endseq"]
    write_pickled_object(
        folder / "tokenizer.pkl", "keras.src.legacy.preprocessing.text", "Tokenizer", tokenizer_of(words)
    )

    def features(pixels: Tensor) -> Tensor:
        # as Keras computes: channels last, blue first
        grid = pixels.flip(1)
        for i, block in enumerate(VGG_WIDTHS, 1):
            for j in range(1, len(block) + 1):
                kernel = torch.from_numpy(vgg[f"block{i}_conv{j}/kernel"]).double().permute(3, 2, 0, 1)
                bias = torch.from_numpy(vgg[f"block{i}_conv{j}/bias"]).double()
                grid = nn.functional.conv2d(grid, kernel, bias, padding="same").relu()
            grid = nn.functional.max_pool2d(grid, 2)
        vector = torch.einsum("bchw->bhwc", grid).reshape(len(grid), -1)
        for name in ("fc1", "fc2"):
            kernel, bias = (torch.from_numpy(vgg[f"{name}/{key}"]).double() for key in ("kernel", "bias"))
            vector = (vector @ kernel + bias).relu()
        return vector

    source = Source(folder / file, folder / "tokenizer.pkl", str(folder / "vgg16.h5"), encoder="vgg16")
    return Case("keras-merge", source, features, partial(references.keras_merge, model))


CASES: dict[str, Callable[[Path], Case]] = {
    "yunjey": yunjey,
    "yunjey of 2 layers": partial(yunjey, layers=2),
    "sgrvinod": sgrvinod,
    "sgrvinod before PyTorch 1.6": partial(sgrvinod, legacy=True),
    "ruotianluo fc": ruotianluo,
    "ruotianluo newfc": partial(ruotianluo, kind="newfc"),
    "ruotianluo att2in2": partial(ruotianluo, kind="att2in2"),
    "ruotianluo att2in2 with normalisations": partial(ruotianluo, kind="att2in2", norms=2),
    "keras-merge": keras_merge,
}
