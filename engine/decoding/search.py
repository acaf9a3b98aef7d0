"""The interface of all searches: images are added at any step, advance with each step, and leave when finished."""

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from engine.decoding.hypotheses import TokenHypothesis
from engine.decoding.step_request import StepKind, StepRequest


class Draw(NamedTuple):
    """The settings that each image has for itself when tokens are drawn."""

    seed: int | None
    temperature: float


class Search(ABC):
    """Images that are decoded with the same options, each at its own position in its caption.

    An image is identified by its owner, any hashable object.
    """

    kind: StepKind
    """The kind of every request."""

    @property
    @abstractmethod
    def owners(self) -> list[Any]:
        """Owners of the unfinished images, in the order of their rows."""

    @abstractmethod
    def add(self, owners: Sequence[Any], state_rows: np.ndarray, draws: Sequence[Draw] = ()) -> None:
        """Adds images: state_rows, int64 (images,), are the model's rows with their first states.

        draws: one for each image, if the search draws tokens.
        """

    @abstractmethod
    def remove(self, owners: set[Any]) -> None:
        """Removes images before they are finished."""

    @abstractmethod
    def next_step(self) -> StepRequest:
        """Returns the next step, for at least one image."""

    @abstractmethod
    def advance(
        self, ids: np.ndarray, log_probs: np.ndarray, first_row: int = 0
    ) -> list[tuple[Any, list[TokenHypothesis]]]:
        """Processes the step's results; returns the finished images with their hypotheses, best first.

        first_row: which row of the model's step was the search's first.
        """

    @abstractmethod
    def owners_of_rows(self, rows: np.ndarray) -> list[Any]:
        """Returns the images that own any of these rows, bool (rows,), of the last request."""

    @abstractmethod
    def stable_tokens(self, owners: Collection[Any]) -> Iterator[tuple[Any, list[int]]]:
        """Yields, for some images, the first tokens of the best hypothesis that can no longer change."""


def common_prefix(sequences: Sequence[np.ndarray]) -> list[int]:
    """Returns the longest common prefix of sequences, each int64 (length,)."""
    length = min(map(len, sequences))
    if len(sequences) == 1:
        return sequences[0].tolist()  # type: ignore[no-any-return]
    heads = np.array([sequence[:length] for sequence in sequences])  # (sequences, length)
    differ = (heads != heads[0]).any(axis=0)
    return heads[0, : int(differ.argmax()) if differ.any() else length].tolist()  # type: ignore[no-any-return]
