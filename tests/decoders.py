"""Small decoders other than the LSTM that is trained here, with an encoder and a vocabulary of their own."""

from pathlib import Path

import torch
from torch import Tensor, nn

from engine.bundle.manifest import ImageSpec, Words
from engine.bundle.vocabulary import Vocabulary

NAMES = "there", "is", "a", "man", "dog", "and", "the", "on", "cat", "red", "blue", "big", "runs", "sits", "near", "two"
WORDS = Vocabulary(
    ("<pad>", "<start>", "<end>", "<unk>", *NAMES, *(f"word{i}" for i in range(40))),
    Words(start="<start>", end="<end>", pad="<pad>", unk="<unk>", pattern=r"\S+", lowercase=True),
)
IMAGE = ImageSpec(48, 64, (120.0, 121.0, 119.0), (60.0, 61.0, 62.0), resample="bilinear")
CHANNELS, HEIGHT, WIDTH = 12, 3, 4
Tensors = tuple[Tensor, ...]


class GridEncoder(nn.Module):
    """Pixels (batch, 3, 48, 64) to a grid (batch, 3, 4, CHANNELS)."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 5, stride=4, padding=2)
        self.second = nn.Conv2d(8, CHANNELS, 4, stride=4)

    def forward(self, pixels: Tensor) -> Tensor:
        grid: Tensor = self.second(self.first(pixels).relu()).permute(0, 2, 3, 1)
        return grid


class AttentionDecoder(nn.Module):
    """Soft attention over a grid: two state tensors, two context tensors, and a map of where it looked."""

    context_names = "keys", "values"

    def __init__(self, units: int = 24) -> None:
        super().__init__()
        self.embedding = nn.Embedding(len(WORDS), 16)
        self.first, self.first_cell = nn.Linear(CHANNELS, units), nn.Linear(CHANNELS, units)
        self.keys, self.values = nn.Linear(CHANNELS, 10), nn.Linear(CHANNELS, 14)
        self.query, self.energy = nn.Linear(units, 10, bias=False), nn.Linear(10, 1)
        self.lstm = nn.LSTMCell(16 + 14, units)
        self.output = nn.Linear(units, len(WORDS))

    def start(self, features: Tensor) -> tuple[Tensors, Tensors]:
        cells = features.flatten(1, 2)
        mean = cells.mean(dim=1)
        return (self.first(mean).tanh(), self.first_cell(mean)), (self.keys(cells), self.values(cells))

    def step_with_attention(
        self, token_ids: Tensor, state: Tensors, context: Tensors
    ) -> tuple[Tensor, Tensors, Tensor]:
        keys, values = context
        energies = self.energy((keys + self.query(state[0])[:, None]).tanh())[:, :, 0]
        weights = energies.softmax(dim=1)
        seen = (weights[:, :, None] * values).sum(dim=1)
        hidden, cell = self.lstm(torch.cat([self.embedding(token_ids), seen], dim=1), (state[0], state[1]))
        return self.output(hidden), (hidden, cell), weights.unflatten(1, (HEIGHT, WIDTH))

    def step(self, token_ids: Tensor, state: Tensors, context: Tensors) -> tuple[Tensor, Tensors]:
        logits, following, _ = self.step_with_attention(token_ids, state, context)
        return logits, following


class CountingDecoder(nn.Module):
    """Two GRU layers whose state is one tensor of rank three, beside an int64 tensor that counts the words."""

    def __init__(self, units: int = 20) -> None:
        super().__init__()
        self.embedding = nn.Embedding(len(WORDS), units)
        self.places = nn.Embedding(64, units)
        self.first = nn.Linear(CHANNELS, 2 * units)
        self.lower, self.upper = nn.GRUCell(units, units), nn.GRUCell(units, units)
        self.output = nn.Linear(units, len(WORDS))

    def start(self, features: Tensor) -> tuple[Tensors, Tensors]:
        layers = self.first(features.mean(dim=(1, 2))).tanh().unflatten(1, (2, -1))
        return (layers, torch.zeros_like(features[:, 0, 0, 0], dtype=torch.int64)), ()

    def step(self, token_ids: Tensor, state: Tensors, context: Tensors) -> tuple[Tensor, Tensors]:
        layers, count = state
        lower = self.lower(self.embedding(token_ids) + self.places(count), layers[:, 0])
        upper = self.upper(lower, layers[:, 1])
        return self.output(upper), (torch.stack([lower, upper], dim=1), count + 1)


def seeded(kind: type[nn.Module]) -> nn.Module:
    """Makes a module, the same each time, with weights so large that sentences differ from image to image and end."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(4 if kind is GridEncoder else 17)
        module = kind()
        for name, parameter in module.named_parameters():
            parameter.mul_(1 if name.startswith("first") else 4 if name.startswith(("second", "output")) else 3)
            if name == "output.bias":
                parameter[WORDS.end_id] += 1.7
    return module.eval()


def export(kind: type[nn.Module], output: Path, precisions: tuple[str, ...] = ("fp32",)) -> Path:
    """Exports a decoder of this module to a bundle."""
    from export import ExportOptions, export_modules
    from export.variants import VariantOptions

    samples = Path(__file__).parents[1] / "samples"
    calibration = (samples,) if "int8" in precisions else ()
    variants = VariantOptions(precisions=precisions, calibration=calibration, calibration_images=4)
    defaults = {"max_length": 12, "length_penalty": 1.0, "bad_endings": ("a", "the")}
    options = ExportOptions(defaults=defaults, variants=variants)
    export_modules(seeded(GridEncoder), seeded(kind), WORDS, IMAGE, output, options)
    return output
