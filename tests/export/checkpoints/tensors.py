"""Random checkpoints of other projects, name by name as their modules define them. Imports nothing of ours."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn
from torchvision.models.resnet import Bottleneck, ResNet

SIZES = {"words": 12, "embedding": 6, "units": 8, "attention": 7}
CHANNELS = 2048


def drawn(shapes: Mapping[str, tuple[int, ...]], seed: int) -> dict[str, Tensor]:
    """Weights large enough that words differ clearly, and not so large that the units saturate."""
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=generator) * _scale(shape) for name, shape in shapes.items()}


def _scale(shape: tuple[int, ...]) -> float:
    return 2 / shape[-1] ** 0.5 if len(shape) > 1 else 0.2


def lstm_layer(prefix: str, suffix: str, inputs: int, units: int) -> dict[str, tuple[int, ...]]:
    return {
        f"{prefix}weight_ih{suffix}": (4 * units, inputs),
        f"{prefix}weight_hh{suffix}": (4 * units, units),
        f"{prefix}bias_ih{suffix}": (4 * units,),
        f"{prefix}bias_hh{suffix}": (4 * units,),
    }


def linear(name: str, inputs: int, outputs: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}


def yunjey_decoder(layers: int) -> dict[str, Tensor]:
    words, embedding, units = SIZES["words"], SIZES["embedding"], SIZES["units"]
    shapes: dict[str, tuple[int, ...]] = {"embed.weight": (words, embedding)}
    for layer in range(layers):
        shapes |= lstm_layer("lstm.", f"_l{layer}", embedding if layer == 0 else units, units)
    return drawn({**shapes, **linear("linear", units, words)}, 1)


def sgrvinod_decoder() -> dict[str, Tensor]:
    words, embedding, units, size = SIZES.values()
    shapes = {
        **linear("attention.encoder_att", CHANNELS, size),
        **linear("attention.decoder_att", units, size),
        **linear("attention.full_att", size, 1),
        "embedding.weight": (words, embedding),
        **lstm_layer("decode_step.", "", embedding + CHANNELS, units),
        **linear("init_h", CHANNELS, units),
        **linear("init_c", CHANNELS, units),
        **linear("f_beta", units, CHANNELS),
        **linear("fc", units, words),
    }
    return drawn(shapes, 2)


def ruotianluo_model(kind: str, norms: int = 0) -> dict[str, Tensor]:
    words, embedding, units, size = SIZES.values()
    core = "_core" if kind == "newfc" else "core"
    shapes = {**linear(f"{core}.i2h", embedding, 5 * units), **linear(f"{core}.h2h", units, 5 * units)}
    shapes |= linear("logit", units, words)
    if kind in ("fc", "newfc"):
        image = "fc_embed" if kind == "newfc" else "img_embed"
        return drawn({**shapes, "embed.weight": (words, embedding), **linear(image, CHANNELS, embedding)}, 3)
    dense = min(norms, 1)
    shapes |= {
        "embed.0.weight": (words, embedding),
        **linear(f"att_embed.{dense}", CHANNELS, units),
        **linear("ctx2att", units, size),
        **linear("core.a2c", units, 2 * units),
        **linear("core.attention.h2att", units, size),
        **linear("core.attention.alpha_net", size, 1),
    }
    state = drawn(shapes, 4)
    for place, channels in ((0, CHANNELS), (4, units))[:norms]:
        norm = nn.BatchNorm1d(channels)
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.uniform_(norm.running_var, 0.5, 1.5)  # type: ignore[arg-type]
        state |= {f"att_embed.{place}.{name}": value for name, value in norm.state_dict().items()}
    return state


def keras_model(features: int) -> dict[str, np.ndarray]:
    words, embedding, units = SIZES["words"], SIZES["embedding"], SIZES["units"]
    shapes = {
        "embedding/embeddings": (words, embedding),
        "dense/kernel": (features, units),
        "dense/bias": (units,),
        "lstm/kernel": (embedding, 4 * units),
        "lstm/recurrent_kernel": (units, 4 * units),
        "lstm/bias": (4 * units,),
        "dense_1/kernel": (units, 9),
        "dense_1/bias": (9,),
        "dense_2/kernel": (9, words),
        "dense_2/bias": (words,),
    }
    generator = np.random.default_rng(5)
    return {
        name: generator.normal(0, 2 / shape[0] ** 0.5 if len(shape) > 1 else 0.2, shape).astype(np.float32)
        for name, shape in shapes.items()
    }


VGG_WIDTHS = ((4, 4), (5, 5), (6, 6, 6), (7, 7, 7), (8, 8, 8))
VGG_FEATURES = 10


def keras_vgg16() -> dict[str, np.ndarray]:
    """A VGG16 of few channels, with the names of Keras's file."""
    generator = np.random.default_rng(6)
    arrays: dict[str, np.ndarray] = {}
    channels = 3
    for i, block in enumerate(VGG_WIDTHS, 1):
        for j, width in enumerate(block, 1):
            arrays[f"block{i}_conv{j}/kernel"] = generator.normal(
                0, (9 * channels / 2) ** -0.5, (3, 3, channels, width)
            )
            arrays[f"block{i}_conv{j}/bias"] = generator.normal(0, 0.1, width)
            channels = width
    for name, inputs, outputs in (
        ("fc1", 49 * channels, 9),
        ("fc2", 9, VGG_FEATURES),
        ("predictions", VGG_FEATURES, 4),
    ):
        arrays[f"{name}/kernel"] = generator.normal(0, inputs**-0.5, (inputs, outputs))
        arrays[f"{name}/bias"] = generator.normal(0, 0.1, outputs)
    return {name: array.astype(np.float32) for name, array in arrays.items()}


def resnet() -> ResNet:
    """A ResNet of one narrow block per stage, with 2,048 channels at its end as the deep ones have."""
    torch.manual_seed(7)
    network = ResNet(Bottleneck, [1, 1, 1, 1], num_classes=3, width_per_group=4)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.0)
            nn.init.normal_(module.running_mean, 0, 0.1)  # type: ignore[arg-type]
    return network.eval()
