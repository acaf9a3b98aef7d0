"""One space for texts and images: the vectors of a photograph and of its sentences are close. Knows no training.

A text's vector is a projection of the mean of its words' embeddings, an image's one of its features. The order of
words is left to the decoder, which reads a sentence word by word and ranks again what is found by the vectors. A
recurrent network in place of the mean found no more (docs/quality.md).
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from training.models.checkpoint import BEST, CONFIG, FORMAT, VOCABULARY, CheckpointError, load_tensors, restore_decoder

MOST_SCALE = 100.0


@dataclass(frozen=True, slots=True)
class JointSizes:
    """All sizes of the space. Raises ValueError naming the field with an invalid value."""

    feature_shape: tuple[int, ...]
    vocabulary_size: int
    embedding: int = 512
    hidden: int = 512
    size: int = 512

    def __post_init__(self) -> None:
        for name in ("vocabulary_size", "embedding", "hidden", "size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, but it is {getattr(self, name)}")


class TextVectors(nn.Module):
    """Token ids to vectors."""

    def __init__(self, sizes: JointSizes, dropout: float = 0.0) -> None:
        super().__init__()
        self.sizes = sizes
        self.embedding = nn.Embedding(sizes.vocabulary_size, sizes.embedding)
        nn.init.normal_(self.embedding.weight, std=0.1)
        self.project = nn.Linear(sizes.embedding, sizes.size)
        self.dropout = nn.Dropout(dropout)

    def forward(self, token_ids: Tensor, lengths: Tensor) -> Tensor:
        """Returns float32 (batch, size) for token_ids (batch, length) and lengths (batch,), both int64.

        What is in token_ids after a text's length changes nothing.
        """
        places = torch.arange(token_ids.shape[1], device=token_ids.device)
        read = (places < lengths[:, None])[..., None]  # (batch, length, 1)
        words = self.dropout(self.embedding(token_ids)) * read
        return functional.normalize(self.project(words.sum(dim=1) / lengths[:, None]), dim=1)


class ImageVectors(nn.Module):
    """Features to vectors: a matrix, and a hidden layer beside it. A grid of features is averaged first."""

    def __init__(self, sizes: JointSizes, dropout: float = 0.0) -> None:
        super().__init__()
        self.sizes = sizes
        features = sizes.feature_shape[-1]
        self.mean = nn.Parameter(torch.zeros(features), requires_grad=False)
        self.deviation = nn.Parameter(torch.ones(features), requires_grad=False)
        self.project = nn.Linear(features, sizes.size)
        self.hidden = nn.Linear(features, sizes.hidden)
        self.project_hidden = nn.Linear(sizes.hidden, sizes.size, bias=False)
        self.dropout = nn.Dropout(dropout)

    @torch.no_grad()
    def standardise(self, features: Tensor) -> None:
        """Takes mean and standard deviation from features (images, *feature_shape)."""
        pooled = _pooled(features)
        self.mean.copy_(pooled.mean(dim=0))
        self.deviation.copy_(pooled.std(dim=0) + 1e-3)  # of a feature that is always 0

    def forward(self, features: Tensor) -> Tensor:
        """Returns float32 (batch, size) for features (batch, *feature_shape)."""
        standard = (_pooled(features) - self.mean) / self.deviation
        seen = self.dropout(standard)
        hidden = functional.relu(self.hidden(seen))
        return functional.normalize(self.project(seen) + self.project_hidden(hidden), dim=1)


class JointSpace(nn.Module):
    """Both sides, and the scale that a cosine is multiplied by to be the logit of a match."""

    def __init__(self, sizes: JointSizes, *, word_dropout: float = 0.0, feature_dropout: float = 0.0) -> None:
        super().__init__()
        self.sizes = sizes
        self.texts = TextVectors(sizes, word_dropout)
        self.images = ImageVectors(sizes, feature_dropout)
        self.log_scale = nn.Parameter(torch.tensor(14.0).log())

    @property
    def scale(self) -> Tensor:
        """What a cosine is multiplied by."""
        return self.log_scale.exp().clamp(max=MOST_SCALE)


def _pooled(features: Tensor) -> Tensor:
    """Returns the mean over a grid's cells: (batch, feature_size) for features (batch, ..., feature_size)."""
    return features.flatten(1, -2).mean(dim=1) if features.ndim > 2 else features


@dataclass(frozen=True, slots=True)
class JointRun:
    """A trained space (in eval mode, on the CPU) with the words that it knows, config.json and its best epoch."""

    space: JointSpace
    words: tuple[str, ...]
    config: dict[str, Any]
    epoch: dict[str, Any]


def describe_run(sizes: JointSizes, encoder: Mapping[str, object], training: Mapping[str, object]) -> dict[str, Any]:
    """Returns the content of config.json."""
    described = asdict(sizes) | {"feature_shape": list(sizes.feature_shape)}
    return {"format": FORMAT, "joint": described, "encoder": dict(encoder), "training": dict(training)}


def load_joint(folder: Path) -> JointRun:
    """Loads the best checkpoint of a training.joint run. Raises CheckpointError naming what is missing or damaged."""
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        described = dict(config["joint"])
        sizes = JointSizes(**described | {"feature_shape": tuple(described["feature_shape"])})
        words = tuple(json.loads((folder / VOCABULARY).read_text(encoding="utf-8")))  # by the rules of the bundle
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{folder} is not the folder of a training.joint run: {error!r}") from error
    tensors, notes = load_tensors(folder / BEST)
    space = JointSpace(sizes)
    restore_decoder(space, tensors)
    return JointRun(space.eval(), words, config, notes["epoch"])
