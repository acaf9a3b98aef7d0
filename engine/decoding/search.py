"""What every search can do: take images in at any step, ask, be told, and say which images are done."""

from collections.abc import Collection, Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from engine.decoding.hypotheses import Sentence
from engine.decoding.step_request import Ask, Kind


class Draw(NamedTuple):
    """What each image of a search has of its own where tokens are drawn."""

    seed: int | None
    temperature: float


class Search(Protocol):
    """The images that are decoded with the same options, wherever in their sentences they are.

    An image is known by its owner, any object that the caller likes.
    """

    kind: Kind
    owners: list[Any]
    """Of the images that are not done, in the order of their rows."""

    def join(self, owners: Sequence[Any], state_rows: np.ndarray, draws: Sequence[Draw]) -> None:
        """Takes images in: state_rows, int64 (images,), are the rows of the model that hold their first states.

        draws: one for each image, where the search draws.
        """
        ...

    def leave(self, owners: set[Any]) -> None:
        """Gives up images."""
        ...

    def ask(self) -> Ask:
        """Returns what to ask the model next, for at least one image."""
        ...

    def tell(self, ids: np.ndarray, values: np.ndarray, first_row: int) -> list[tuple[Any, list[Sentence]]]:
        """Takes the answer, and returns the images that are done with their sentences, best first.

        first_row: which row of the model's step was the search's first.
        """
        ...

    def owners_of(self, rows: np.ndarray) -> list[Any]:
        """Returns the images that have one of the rows, bool (rows,), that `ask` asked for last."""
        ...

    def standing(self, owners: Collection[Any]) -> Iterator[tuple[Any, list[int]]]:
        """Yields the first tokens of the best sentence of some images, as far as they can no longer change."""
        ...


def common(sentences: Sequence[np.ndarray]) -> list[int]:
    """Returns the tokens with which all of some sentences, each int64 (length,), begin."""
    length = min(map(len, sentences))
    if len(sentences) == 1:
        return sentences[0].tolist()  # type: ignore[no-any-return]
    heads = np.array([sentence[:length] for sentence in sentences])  # (sentences, length)
    differ = (heads != heads[0]).any(axis=0)
    return heads[0, : int(differ.argmax()) if differ.any() else length].tolist()  # type: ignore[no-any-return]
