"""Encoders that learn: the last blocks of a network apart from the frozen rest, and a decoder behind them.

What the blocks before give is computed once for each image; only the tail runs in a training step. Knows nothing of
losses, data and commands.
"""

import copy
from collections.abc import Mapping
from pathlib import Path

import torch
from timm.models.efficientnet import EfficientNet
from torch import Tensor, nn

from training.models import checkpoint
from training.models.decoder import CaptionDecoder, DecoderConfig
from training.models.encoders import Encoder, EncoderError, fingerprint

ALL = "all"
PARTS = 3
"""Runs of captions of nearly one length that the decoder reads apart: all captions of an image are one batch, and
padding them to the longest would be a third of the work."""


class Tail(nn.Module):
    """The part of an encoder that learns, with the statistics of its batch normalisations as they are."""

    def __init__(self, layers: nn.Module, network: nn.Module) -> None:
        """`layers`: some of `network`'s own, which the tail gets a copy of."""
        super().__init__()
        places = {id(tensor): name for name, tensor in network.state_dict(keep_vars=True).items()}
        self.places = {name: places[id(tensor)] for name, tensor in layers.state_dict(keep_vars=True).items()}
        self.layers = copy.deepcopy(layers).requires_grad_(True)
        self.takes_pixels = isinstance(layers, Encoder)
        self.train()

    def train(self, mode: bool = True) -> "Tail":
        """Stays in eval mode: a batch of 32 photographs is no measure of what ImageNet's 1.3 million were."""
        return super().train(False)

    def forward(self, images: Tensor) -> Tensor:
        """Returns features float32 (images, feature_size) for what the frozen part gives, or pixels without one."""
        if not self.takes_pixels:
            images = images.contiguous(memory_format=torch.channels_last)  # twice as fast on a CPU
        features: Tensor = self.layers(images)
        return features.float()

    def state(self) -> dict[str, Tensor]:
        """Returns the tail's tensors under the names that they have in the encoder's network."""
        return {self.places[name]: tensor for name, tensor in self.layers.state_dict().items()}


def split(encoder: Encoder, learning: str) -> tuple[Encoder | None, Tail]:
    """Returns an encoder's frozen part and its tail: the head and the last blocks, `learning` in number, or "all".

    The frozen part gives the float32 (channels, height, width) that the tail takes; with "all" it is None and the
    tail takes pixels. Raises EncoderError for a network without that many blocks or that is no EfficientNet of timm.
    """
    network = encoder.network
    if learning == ALL:
        return None, Tail(encoder, network)
    if not isinstance(network, EfficientNet):
        raise EncoderError(
            f"{encoder.name} is no EfficientNet of timm, whose last blocks could learn alone: fine-tune all of it "
            f'("{ALL}") or choose another encoder'
        )
    first, *rest = network.as_sequential().children()
    blocks = [block for stage in network.blocks.children() for block in stage.children()]
    head = rest[1 + len(network.blocks) :]
    if int(learning) > len(blocks):
        raise EncoderError(f"{encoder.name} has {len(blocks)} blocks, so {learning} of them cannot learn")
    cut = len(blocks) - int(learning)
    stem = nn.Sequential(first, rest[0], *blocks[:cut])
    tail = Tail(nn.Sequential(*blocks[cut:], *head), network)
    return Encoder(f"{encoder.name}-{cut}-blocks", encoder.weights, encoder.image, stem), tail


class FineTuned(CaptionDecoder):
    """A decoder that begins with the tail of its encoder: where a decoder takes features, it takes what the tail does.

    Both learn together, as one module.
    """

    def __init__(self, config: DecoderConfig, tail: Tail, network: Mapping[str, Tensor]) -> None:
        """`network`: the state dict of the whole encoder's network, of which `tail` is the end."""
        super().__init__(config)
        self.tail = tail
        self.network = dict(network)

    def start(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Turns what the tail takes into the first hidden and cell state, each (batch, units)."""
        return super().start(self.tail(images))

    def forward(
        self, images: Tensor, token_ids: Tensor, keep: Tensor | None = None, owners: Tensor | None = None
    ) -> Tensor:
        """As CaptionDecoder.forward; `owners`, int64 (batch,), says which of the images each caption is of.

        With `owners`, captions are best sorted by length.
        """
        if owners is None:
            return super().forward(images, token_ids, keep)
        assert keep is not None
        features = self.tail(images)[owners]  # (batch, feature_size)
        logits = []
        for part in torch.arange(len(owners), device=owners.device).tensor_split(min(PARTS, len(owners))):
            kept = keep[part]
            length = int(kept.any(dim=0).nonzero().max()) + 1 if kept.any() else 1
            state = super().start(features[part])
            logits.append(self.read(*state, token_ids[part, :length], kept[:, :length]))
        return torch.cat(logits)

    def encoder_state(self) -> dict[str, Tensor]:
        """Returns the state dict of the whole encoder's network with the tail as it is now."""
        return self.network | {name: tensor.cpu() for name, tensor in self.tail.state().items()}

    def save_encoder(self, folder: Path) -> str:
        """Writes the encoder into a run's folder, as load_encoder reads it, and returns its fingerprint."""
        state = self.encoder_state()
        checkpoint.save_tensors(folder / checkpoint.ENCODER, state, {})
        return fingerprint(state)
