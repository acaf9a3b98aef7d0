"""Fine-tuning of encoders: trains a network's last blocks together with the decoder.

The output of the frozen blocks is computed once per image; only the tail runs in a training step. Knows nothing of
losses, data or commands.
"""

import copy
from collections.abc import Mapping
from pathlib import Path

import torch
from timm.models.efficientnet import EfficientNet
from torch import Tensor, nn

from training.models import checkpoint
from training.models.attention import AttentionConfig, AttentionDecoder
from training.models.decoder import CaptionDecoder, DecoderConfig, Tensors
from training.models.encoders import GRID, Encoder, EncoderError, fingerprint

ALL = "all"
PARTS = 3
"""Number of groups by length that the decoder reads separately: a batch has all captions of an image, and padding them
to the longest would be a third of the work."""


class Tail(nn.Module):
    """The trained part of an encoder; its batch normalisation statistics stay fixed."""

    def __init__(self, layers: nn.Module, network: nn.Module, *, grid: bool = False) -> None:
        """`layers`: layers of `network`; the tail gets a copy of them. grid: as for Encoder."""
        super().__init__()
        places = {id(tensor): name for name, tensor in network.state_dict(keep_vars=True).items()}
        self.places = {name: places[id(tensor)] for name, tensor in layers.state_dict(keep_vars=True).items()}
        self.layers = copy.deepcopy(layers).requires_grad_(True)
        self.takes_pixels = isinstance(layers, Encoder)
        self.gives_planes = grid and not self.takes_pixels
        self.train()

    def train(self, mode: bool = True) -> "Tail":
        """Stays in eval mode: statistics of 32 photographs are no substitute for those of ImageNet's 1.3 million."""
        return super().train(False)

    def forward(self, images: Tensor) -> Tensor:
        """Returns features float32 (images, *feature_shape) for outputs of the frozen part, or for pixels without."""
        if not self.takes_pixels:
            images = images.contiguous(memory_format=torch.channels_last)  # twice as fast on a CPU
        features: Tensor = self.layers(images).float()
        return features.movedim(1, -1) if self.gives_planes else features

    def state(self) -> dict[str, Tensor]:
        """Returns the tail's tensors under their names in the encoder's network."""
        return {self.places[name]: tensor for name, tensor in self.layers.state_dict().items()}


def split(encoder: Encoder, learning: str) -> tuple[Encoder | None, Tail]:
    """Splits an encoder into its frozen part and its tail: the head and the last `learning` blocks, or "all".

    The frozen part's outputs, float32 (channels, height, width), are the tail's inputs; with "all" it is None and the
    tail takes pixels. Raises EncoderError for a network with fewer blocks or one that is not an EfficientNet of timm.
    """
    network = encoder.network
    if learning == ALL:
        return None, Tail(encoder, network)
    if not isinstance(network, EfficientNet):
        raise EncoderError(
            f"only EfficientNets of timm can be fine-tuned in part, and {encoder.name} is not one: fine-tune all of it "
            f'("{ALL}") or choose another encoder'
        )
    first, *rest = network.as_sequential().children()
    blocks = [block for stage in network.blocks.children() for block in stage.children()]
    head = rest[1 + len(network.blocks) :]
    if int(learning) > len(blocks):
        raise EncoderError(f"{encoder.name} has only {len(blocks)} blocks, so {learning} of them cannot be fine-tuned")
    cut = len(blocks) - int(learning)
    stem = nn.Sequential(first, rest[0], *blocks[:cut])
    tail = Tail(nn.Sequential(*blocks[cut:], *head), network, grid=encoder.grid)
    name = encoder.name.removesuffix(GRID)  # what is frozen computes the same for grids and for vectors
    return Encoder(f"{name}-{cut}-blocks", encoder.weights, encoder.image, stem), tail


class FineTuned(CaptionDecoder):
    """A decoder preceded by the tail of its encoder: it takes the tail's inputs instead of features.

    Both are trained together, as one module.
    """

    def __init__(self, config: DecoderConfig, tail: Tail, network: Mapping[str, Tensor]) -> None:
        """`network`: the state dict of the whole encoder's network, including the tail."""
        super().__init__(config)
        self.tail = tail
        self.network = dict(network)

    def start(self, images: Tensor) -> tuple[Tensors, Tensors]:
        """Turns the tail's inputs into the first state; see CaptionDecoder."""
        return super().start(self.tail(images))

    def forward(
        self, images: Tensor, token_ids: Tensor, keep: Tensor | None = None, owners: Tensor | None = None
    ) -> Tensor:
        """Like CaptionDecoder.forward; `owners`, int64 (batch,), is the image of each caption.

        With `owners`, sort captions by length for speed.
        """
        if owners is None:
            return super().forward(images, token_ids, keep)
        assert keep is not None
        features = self.tail(images)  # (images, *feature_shape)
        whole = super().start(features) if features.ndim > 2 else None  # grids are costly to start from: once per image
        logits = []
        for part in torch.arange(len(owners), device=owners.device).tensor_split(min(PARTS, len(owners))):
            kept, own = keep[part], owners[part]
            length = int(kept.any(dim=0).nonzero().max()) + 1 if kept.any() else 1
            if whole is None:
                started = super().start(features.index_select(0, own))
            else:
                state, context = (tuple(each.index_select(0, own) for each in tensors) for tensors in whole)
                started = state, context
            logits.append(self.read(token_ids[part, :length], *started, kept[:, :length]))
        return torch.cat(logits)

    def encoder_state(self) -> dict[str, Tensor]:
        """Returns the state dict of the whole encoder's network with the current tail."""
        return self.network | {name: tensor.cpu() for name, tensor in self.tail.state().items()}

    def save_encoder(self, folder: Path) -> str:
        """Writes the encoder to a run's folder, for load_encoder, and returns its fingerprint."""
        state = self.encoder_state()
        checkpoint.save_tensors(folder / checkpoint.ENCODER, state, {})
        return fingerprint(state)


class FineTunedAttention(FineTuned, AttentionDecoder):
    """A decoder with attention, which takes the tail's inputs instead of a grid."""


def fine_tuned(config: DecoderConfig, tail: Tail, network: Mapping[str, Tensor]) -> FineTuned:
    """Returns a new decoder of the kind that the sizes are for, after the tail; see FineTuned."""
    kind = FineTunedAttention if isinstance(config, AttentionConfig) else FineTuned
    return kind(config, tail, network)
