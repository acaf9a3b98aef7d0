"""What every layout is read into: modules, words and the rule for photographs. Knows no layout and no file format."""

import re
import string
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from engine.bundle.manifest import ImageSpec
from engine.bundle.manifest import Words as Rules
from engine.bundle.vocabulary import Vocabulary

IMAGENET_MEAN, IMAGENET_STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
"""The usual normalisation of PyTorch's networks, in units of uint8 pixels."""

Tensors = tuple[Tensor, ...]


class StepDecoder(nn.Module):
    """A decoder that reads one word at a time; every tensor's first dimension is the batch or the rows."""

    def start(self, features: Tensor) -> tuple[Tensors, Tensors]:
        """Turns features (batch, ...) into the first state and the context, which stays the same for all steps."""
        raise NotImplementedError

    def step(self, token_ids: Tensor, state: Tensors, context: Tensors) -> tuple[Tensor, Tensors]:
        """Reads a word per row, int64 (rows,); returns logits (rows, words) and the next state."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class Splitting:
    """How a project splits a sentence into words: what `word` matches, in lower case, after `removed` is taken out."""

    word: str = r"\S+"
    removed: str = ""
    lower: bool = True

    def split(self, text: str) -> list[str]:
        """Returns the words of a sentence."""
        text = text.lower() if self.lower else text
        return re.findall(self.word, text.translate(str.maketrans("", "", self.removed)))


KARPATHY = Splitting(removed=string.punctuation)
"""The words of Karpathy's splits of COCO and Flickr, which most projects use: lower case, punctuation taken out."""


@dataclass(frozen=True, slots=True)
class Words:
    """A project's words by id. start, end, pad and unk are ids; start and end can be the same, pad and unk None."""

    words: tuple[str, ...]
    start: int
    end: int
    pad: int | None
    unk: int | None
    splitting: Splitting

    @property
    def never(self) -> frozenset[int]:
        """The ids that no caption contains."""
        return frozenset(i for i in (self.start, self.pad, self.unk) if i is not None and i != self.end)

    def vocabulary(self) -> Vocabulary:
        """Returns them as a bundle has them. Punctuation that a project takes out of words separates them there."""
        end, splitting = self.words[self.end], self.splitting
        pattern = f"[^\\s{re.escape(splitting.removed)}]+" if splitting.removed else splitting.word
        pad, unk = (end if i is None else self.words[i] for i in (self.pad, self.unk))
        start = self.words[self.start]
        return Vocabulary(self.words, Rules(start, end, pad, unk, pattern=pattern, lowercase=splitting.lower))


@dataclass(frozen=True, slots=True)
class Imported:
    """A captioner of another project.

    encoder: normalised float32 pixels (batch, 3, height, width) to features of any rank, channels last; a module in
    eval mode. decoder: in eval mode too. image: how a photograph becomes pixels.
    origin: one line that says which project and which networks, for the record.
    """

    encoder: nn.Module
    decoder: StepDecoder
    words: Words
    image: ImageSpec
    origin: str


@dataclass(frozen=True, slots=True)
class Source:
    """The files of a captioner as its project wrote them.

    encoder_weights: a file, or "random" for networks that are not in the checkpoint; None where the checkpoint has all.
    encoder: the name of the network, where files do not tell it. size: height and width of the pixels, None for the
    project's own.
    """

    checkpoint: Path
    vocabulary: Path
    encoder_weights: str | None = None
    encoder: str | None = None
    size: tuple[int, int] | None = None

    def image(
        self, height: int, width: int, mean: tuple[float, float, float], std: tuple[float, float, float], resample: str
    ) -> ImageSpec:
        """Returns a rule that squashes to this size, or to the one that was asked for."""
        height, width = self.size or (height, width)
        return ImageSpec(height, width, mean, std, resize="squash", resample=resample)


def by_id(ids: Mapping[str, int], named: Mapping[int, str] | None = None) -> tuple[tuple[str, ...], list[str]]:
    """Orders words by their ids, and lists what is wrong with them.

    named: words for ids that the project gives none.
    """
    words: dict[int, str] = dict(named or {})
    faults = [f"the word {word!r} has the id {i!r}" for word, i in ids.items() if type(i) is not int or i < 0]
    if faults:
        return (), faults
    for word, i in ids.items():
        if i in words:
            faults.append(f"the words {words[i]!r} and {word!r} both have the id {i}")
        words[i] = word
    largest = max(words, default=-1)
    if largest > 2 * len(words) + 9:
        faults.append(f"there are {len(words)} words, but ids up to {largest}")
    elif absent := [str(i) for i in range(largest + 1) if i not in words]:
        faults.append(f"no words have the ids {', '.join(absent)}")
    return tuple(words.get(i, "") for i in range(len(words))), faults
