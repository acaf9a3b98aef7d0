"""Encoders: pretrained networks from pixels to features. Owns names and normalisation; trains nothing.

Names: `inception_v3` (torchvision), `efficientnet_lite0`, `1`, `2` (a package's weights) and every timm model.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import timm
import torch
import torchvision
from timm.data.config import resolve_model_data_config
from torch import nn

from engine.bundle.manifest import ImageSpec
from training.models.encoder_weights import EncoderError, lite_pretrained, load_into, read_weights, reason

__all__ = ["Encoder", "EncoderError", "fingerprint", "load_encoder"]

LITE_SIZES = {"efficientnet_lite0": 224, "efficientnet_lite1": 240, "efficientnet_lite2": 260}
# ImageNet weights of torchvision's Inception need (x - 0.5) / 0.5: its published preprocessing applies ImageNet's mean
# and std, which transform_input then reverses, so neither is done here.
INCEPTION_IMAGE = ImageSpec(299, 299, (127.5,) * 3, (127.5,) * 3, resample="bilinear")
LITE_HEAD = ("classifier.",)
RANDOM_SEED = 0
GRID = "-grid"  # ends the name of an encoder that gives grids


class Encoder(nn.Module):
    """A frozen network including normalisation: uint8 pixels in, features out, usually one vector per image."""

    mean: torch.Tensor
    std: torch.Tensor
    compilable = True  # False: it is run as it is

    def __init__(self, name: str, weights: str, image: ImageSpec, network: nn.Module, *, grid: bool = False) -> None:
        """network: float32 (batch, 3, height, width) to float32 (batch, ...); it is frozen.

        grid: it gives planes (batch, channels, height, width), which become (batch, height, width, channels).
        """
        super().__init__()
        self.name = name
        self.weights = weights
        self.image = image
        self.grid = grid
        self.register_buffer("mean", torch.tensor(image.mean).reshape(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(image.std).reshape(3, 1, 1), persistent=False)
        self.network = network.to(memory_format=torch.channels_last)
        self.requires_grad_(False).eval()
        self.fingerprint = fingerprint(network.state_dict())
        with torch.inference_mode():
            features = self(torch.zeros(1, image.height, image.width, 3, dtype=torch.uint8))
        self.output_shape: tuple[int, ...] = tuple(features.shape[1:])

    @property
    def feature_size(self) -> int:
        """Length of an image's feature vector, or of each cell's in a grid."""
        return self.output_shape[-1]

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Returns float32 (batch, *output_shape) for uint8 pixels (batch, height, width, 3)."""
        planes = pixels.permute(0, 3, 1, 2).to(torch.float32)  # (batch, 3, height, width), channels last in memory
        return self.of_planes((planes - self.mean) / self.std)

    def of_planes(self, planes: torch.Tensor) -> torch.Tensor:
        """Like calling it, for normalised pixels (batch, 3, height, width)."""
        features: torch.Tensor = self.network(planes)
        return features.movedim(1, -1) if self.grid else features


def load_encoder(name: str, weights: str = "pretrained", *, grid: bool = False) -> Encoder:
    """Makes an encoder, frozen and in eval mode.

    weights: "pretrained" (a package's, or the download of torchvision or timm), "random" (the same ones every
    time), or the path of a .pth or .safetensors state dict. grid: its features are the last grid before the mean over
    the image, (height, width, feature_size), as attention needs; its name then ends in GRID. Raises EncoderError
    for an unknown name, for weights that are missing, cannot be downloaded or do not fit, and for an encoder without
    such features.
    """
    with torch.random.fork_rng(devices=[]):
        made = _make(name, weights)
    if weights not in ("pretrained", "random"):
        load_into(made.network, read_weights(Path(weights)), made.head, weights)
        weights = Path(weights).name
    if grid:
        _unpool(name, made.network)
    try:
        encoder = Encoder(f"{name}{GRID}" if grid else name, weights, made.image, made.network, grid=grid)
    except (AssertionError, RuntimeError) as error:  # how timm refuses an image size
        size = f"{made.image.height} x {made.image.width}"
        raise EncoderError(f"{name} does not support images of {size} pixels ({reason(error)})") from error
    if len(encoder.output_shape) != 1 and not grid:
        raise EncoderError(f"{name} gives features of shape {encoder.output_shape}, not one vector per image")
    if grid and len(encoder.output_shape) != 3:
        raise _no_grid(name)
    return encoder


def _unpool(name: str, network: Any) -> None:
    """Makes a network return its last grid, as channels by height by width. Raises EncoderError if it cannot."""
    try:
        network.reset_classifier(0, "")  # timm's way to say so
    except (AttributeError, AssertionError, RuntimeError, TypeError, ValueError) as error:
        raise _no_grid(name) from error


def _no_grid(name: str) -> EncoderError:
    return EncoderError(
        f"{name} gives no grid of features for attention to look at: choose a convolutional network of timm, such as "
        f"{next(iter(LITE_SIZES))}, or --decoder lstm"
    )


def fingerprint(state: Mapping[str, torch.Tensor]) -> str:
    """Returns the SHA-256 of a network's state dict: names, types, shapes and values."""
    digest = hashlib.sha256()
    for name, tensor in state.items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().contiguous().cpu().numpy().tobytes())
    return digest.hexdigest()


@dataclass(frozen=True, slots=True)
class _Made:
    network: nn.Module
    image: ImageSpec
    head: tuple[str, ...]  # prefixes of the state dict's entries that only classification needs


def _make(name: str, weights: str) -> _Made:
    torch.manual_seed(RANDOM_SEED)
    if name == "inception_v3":
        return _inception(name, weights)
    return _lite(name, weights) if name in LITE_SIZES else _timm(name, weights)


def _inception(name: str, weights: str) -> _Made:
    network = torchvision.models.inception_v3(aux_logits=False, transform_input=False, init_weights=False)
    if weights == "random":
        # With either of its own initialisations, features are out of float16's range: 1e-7 or 1e11.
        for module in network.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
    network.fc = nn.Identity()
    head = ("fc.", "AuxLogits.")
    if weights == "pretrained":
        try:
            state = torchvision.models.Inception_V3_Weights.IMAGENET1K_V1.get_state_dict(check_hash=True)
        except (OSError, RuntimeError) as error:
            raise _no_download(name, error) from error
        load_into(network, state, head, "torchvision's download")
    return _Made(network, INCEPTION_IMAGE, head)


def _lite(name: str, weights: str) -> _Made:
    # The package's weights are TensorFlow's: its padding and BatchNorm epsilon are those of timm's tf_ variant.
    network = timm.create_model(f"tf_{name}", num_classes=0)
    size = LITE_SIZES[name]
    if weights == "pretrained":
        load_into(network, lite_pretrained(name), LITE_HEAD, "the package's weights")
    return _Made(network, ImageSpec(size, size, (127.0,) * 3, (128.0,) * 3), LITE_HEAD)


def _timm(name: str, weights: str) -> _Made:
    if not timm.is_model(name):
        known = ["inception_v3", *LITE_SIZES, *timm.list_models()]
        near = ", ".join(get_close_matches(name, known, n=3)) or "timm.list_models() lists the names"
        raise EncoderError(
            f"unknown encoder {name!r}: choose inception_v3, {', '.join(LITE_SIZES)} or one of timm's; similar: {near}"
        )
    network: Any
    try:
        network = timm.create_model(name, pretrained=weights == "pretrained", num_classes=0)
    except Exception as error:  # the hub's client raises errors of several libraries
        if weights != "pretrained":
            raise
        raise _no_download(name, error) from error
    config: dict[str, Any] = resolve_model_data_config(network)  # type: ignore[no-untyped-call]
    _, height, width = config["input_size"]
    image = ImageSpec(
        height,
        width,
        tuple(255 * value for value in config["mean"]),
        tuple(255 * value for value in config["std"]),
        resample=config["interpolation"],
    )
    classifier = network.pretrained_cfg.get("classifier") or ()
    heads = (classifier,) if isinstance(classifier, str) else tuple(classifier)
    return _Made(network, image, tuple(f"{head}." for head in heads))


def _no_download(name: str, error: Exception) -> EncoderError:
    return EncoderError(
        f"the pretrained weights of {name} could not be downloaded ({reason(error)}); "
        "pass a file with --encoder-weights, or 'random' for untrained ones"
    )
