"""One step that a search requests from the model, and how steps of several searches are combined into one run."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import inf
from typing import Literal, NamedTuple

import numpy as np

from engine.decoding.step_model import StepModel
from engine.errors import EngineError


class StepKind(NamedTuple):
    """Which method of StepModel a request calls. Requests of one kind can share a run.

    many: whether `step` must return so many candidates that sharing would slow other requests down.
    """

    method: Literal["step", "draw"]
    many: bool = False


@dataclass(frozen=True, slots=True)
class StepRequest:
    """One step of some rows: the arguments of StepModel's methods. Unused, k is 0 and the draws are None."""

    kind: StepKind
    token_ids: np.ndarray  # (rows,)
    parent_rows: np.ndarray  # (rows,)
    bias: np.ndarray  # (1 or rows, vocabulary)
    k: int = 0
    temperatures: np.ndarray | None = None  # (rows,)
    uniforms: np.ndarray | None = None  # (rows,)

    def run(self, model: StepModel) -> tuple[np.ndarray, np.ndarray]:
        """Runs the model; returns ids and log_probs, best first: (rows, k) or (rows,)."""
        if self.temperatures is None or self.uniforms is None:
            return model.step(self.token_ids, self.parent_rows, self.bias, self.k)
        return model.draw(self.token_ids, self.parent_rows, self.bias, self.temperatures, self.uniforms)


def merge(requests: Sequence[StepRequest]) -> StepRequest:
    """Combines requests of one kind into one; the rows keep their order."""
    first = requests[0]
    if len(requests) == 1:
        return first
    bias = first.bias
    if len(bias) > 1 or any(request.bias is not bias for request in requests):
        rows = [len(request.token_ids) for request in requests]
        bias = np.empty((sum(rows), bias.shape[1]), np.float32)
        at = 0
        for request, count in zip(requests, rows, strict=True):
            bias[at : (at := at + count)] = request.bias
    temperatures = [request.temperatures for request in requests if request.temperatures is not None]
    uniforms = [request.uniforms for request in requests if request.uniforms is not None]
    return replace(
        first,
        token_ids=np.concatenate([request.token_ids for request in requests]),
        parent_rows=np.concatenate([request.parent_rows for request in requests]),
        bias=bias,
        k=max(request.k for request in requests),
        temperatures=np.concatenate(temperatures) if temperatures else None,
        uniforms=np.concatenate(uniforms) if uniforms else None,
    )


def nan_rows(log_probs: np.ndarray) -> np.ndarray | None:
    """Returns which rows of a step are NaN, bool (rows,); None, as usual, if none is."""
    best = log_probs if log_probs.ndim == 1 else log_probs[:, 0]  # if the best is NaN, so is its whole row
    return None if sum(best.tolist()) < inf else np.isnan(best)


def nan_error() -> EngineError:
    """Returns the error for rows that are NaN."""
    return EngineError(
        "the model returned NaN: either the features passed in contain NaN, or this provider and precision do not work "
        "on this machine; try provider='cpu'"
    )
