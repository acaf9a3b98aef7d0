"""What a search asks a model in one step, and how several searches ask together. Knows no rule of any search."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import inf
from typing import NamedTuple

import numpy as np

from engine.decoding.step_model import StepModel
from engine.errors import EngineError


class Kind(NamedTuple):
    """Asks of one kind can be put as one: which method of StepModel answers.

    many: whether `step` is asked for so many candidates that it would cost the others too much.
    """

    verb: str
    many: bool = False


@dataclass(frozen=True, slots=True)
class Ask:
    """One step of some rows: the arguments of StepModel's methods. k is 0, and what is drawn by None, where unused."""

    kind: Kind
    token_ids: np.ndarray  # (rows,)
    parent_rows: np.ndarray  # (rows,)
    bias: np.ndarray  # (1 or rows, vocabulary)
    k: int = 0
    temperatures: np.ndarray | None = None  # (rows,)
    uniforms: np.ndarray | None = None  # (rows,)

    def put(self, model: StepModel) -> tuple[np.ndarray, np.ndarray]:
        """Returns the model's answer: ids and how good they are, (rows, k) or (rows,)."""
        if self.kind.verb == "step":
            return model.step(self.token_ids, self.parent_rows, self.bias, self.k)
        if self.temperatures is None or self.uniforms is None:
            return model.best(self.token_ids, self.parent_rows, self.bias)
        return model.draw(self.token_ids, self.parent_rows, self.bias, self.temperatures, self.uniforms)


def together(asks: Sequence[Ask]) -> Ask:
    """Returns one question for several of one kind; the rows come in their order."""
    first = asks[0]
    if len(asks) == 1:
        return first
    bias = first.bias
    if len(bias) > 1 or any(ask.bias is not bias for ask in asks):
        rows = [len(ask.token_ids) for ask in asks]
        bias = np.empty((sum(rows), bias.shape[1]), np.float32)
        at = 0
        for ask, count in zip(asks, rows, strict=True):
            bias[at : (at := at + count)] = ask.bias
    temperatures = [ask.temperatures for ask in asks if ask.temperatures is not None]
    uniforms = [ask.uniforms for ask in asks if ask.uniforms is not None]
    return replace(
        first,
        token_ids=np.concatenate([ask.token_ids for ask in asks]),
        parent_rows=np.concatenate([ask.parent_rows for ask in asks]),
        bias=bias,
        k=max(ask.k for ask in asks),
        temperatures=np.concatenate(temperatures) if temperatures else None,
        uniforms=np.concatenate(uniforms) if uniforms else None,
    )


def no_numbers(values: np.ndarray) -> np.ndarray | None:
    """Returns which rows of an answer are no numbers, bool (rows,); None where all are, as they should be."""
    best = values if values.ndim == 1 else values[:, 0]  # where the best is no number, none of its row is
    return None if sum(best.tolist()) < inf else np.isnan(best)


def no_numbers_error() -> EngineError:
    """Returns what to raise for them."""
    return EngineError(
        "the model computed no numbers (NaN): its features are no numbers, or the provider or precision is broken "
        "here; try provider='cpu'"
    )
