"""The interface of all searches: images are added at any step, advance with each step, and leave when finished."""

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from engine.decoding.hypotheses import TokenHypothesis
from engine.decoding.step_request import StepKind, StepRequest


class Draw(NamedTuple):
    """What each image of a search has of its own where tokens are drawn."""

    seed: int | None
    temperature: float


class Search(ABC):
    """The images that are decoded with the same options, each at its own position in its caption.

    An image is known by its owner, which may be any object that can be hashed.
    """

    kind: StepKind
    """Of every request."""

    @property
    @abstractmethod
    def owners(self) -> list[Any]:
        """Of the images that are not finished, in the order of their rows."""

    @abstractmethod
    def add(self, owners: Sequence[Any], state_rows: np.ndarray, draws: Sequence[Draw] = ()) -> None:
        """Adds images: state_rows, int64 (images,), are the rows of the model that hold their first states.

        draws: one for each image, where the search draws.
        """

    @abstractmethod
    def remove(self, owners: set[Any]) -> None:
        """Gives up images."""

    @abstractmethod
    def next_step(self) -> StepRequest:
        """Returns the next step, for at least one image."""

    @abstractmethod
    def advance(
        self, ids: np.ndarray, log_probs: np.ndarray, first_row: int = 0
    ) -> list[tuple[Any, list[TokenHypothesis]]]:
        """Takes the step's results; returns the images that are finished with their hypotheses, best first.

        first_row: which row of the model's step was the search's first.
        """

    @abstractmethod
    def owners_of_rows(self, rows: np.ndarray) -> list[Any]:
        """Returns the images that have one of the rows, bool (rows,), of the last request."""

    @abstractmethod
    def stable_tokens(self, owners: Collection[Any]) -> Iterator[tuple[Any, list[int]]]:
        """Yields the first tokens of the best hypothesis of some images, as far as they can no longer change."""


def common_prefix(sequences: Sequence[np.ndarray]) -> list[int]:
    """Returns the tokens with which all sequences, each int64 (length,), begin."""
    length = min(map(len, sequences))
    if len(sequences) == 1:
        return sequences[0].tolist()  # type: ignore[no-any-return]
    heads = np.array([sequence[:length] for sequence in sequences])  # (sequences, length)
    differ = (heads != heads[0]).any(axis=0)
    return heads[0, : int(differ.argmax()) if differ.any() else length].tolist()  # type: ignore[no-any-return]
