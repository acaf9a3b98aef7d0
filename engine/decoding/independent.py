"""Greedy decoding and sampling: each row chooses its next token by itself."""

from collections.abc import Callable

import numpy as np

from engine.decoding.hypotheses import Hypotheses, normalise
from engine.decoding.model import StepModel
from engine.decoding.rules import Rules

Choose = Callable[[int, np.ndarray, np.ndarray], np.ndarray]


def decode_rows(
    model: StepModel, rules: Rules, choose: Choose, *, k: int, num_rows: int, length_penalty: float
) -> Hypotheses:
    """Decodes num_rows sentences for each image; a row that has ended leaves the batch.

    choose(position, rows, log_probs) gets the numbers of the live rows (image * num_rows + sample) and the k best
    log_probs (rows, k) and returns the column that each row takes.
    """
    found = Hypotheses.empty(model.images, num_rows, rules.max_length)
    tokens, token_log_probs = (array.reshape(-1, rules.max_length) for array in found.arrays()[:2])  # (rows, length)
    lengths, finished = found.lengths.reshape(-1), found.finished.reshape(-1)  # views, as all of these
    rows = np.arange(model.images * num_rows)
    last, parents = np.full(model.images, rules.start_id), np.arange(model.images)
    for position in range(rules.max_length):
        live = rows if position else rows[::num_rows]  # the first step is the same for all rows of an image
        ids, log_probs = model.step(last, parents, rules.bias(tokens[live, :position]), k)
        parents = np.arange(len(live))
        if not position:
            ids, log_probs, parents = (np.repeat(array, num_rows, axis=0) for array in (ids, log_probs, parents))
        chosen = (np.arange(len(rows)), choose(position, rows, log_probs))
        last, gained = ids[chosen], log_probs[chosen]
        possible = gained > -np.inf  # the constraints may leave no way on: the sentence then stands unfinished
        written = rows[possible]
        tokens[written, position], token_log_probs[written, position] = last[possible], gained[possible]
        lengths[written], finished[written] = position + 1, last[possible] == rules.end_id
        going = np.nonzero(possible & (last != rules.end_id))[0]
        rows, last, parents = rows[going], last[going], parents[going]
        if not len(rows):
            break
    totals = found.token_log_probs.sum(axis=2, dtype=np.float64)
    found.scores[:] = normalise(totals, np.maximum(found.lengths, 1), length_penalty)
    return found.ranked()


def likeliest(position: int, rows: np.ndarray, log_probs: np.ndarray) -> np.ndarray:
    """Chooses the best token of each row."""
    return np.zeros(len(rows), np.int64)


def sampler(uniforms: np.ndarray, *, temperature: float, top_p: float) -> Choose:
    """Returns a choice that draws from p ** (1 / temperature), by the inverse of the cumulative distribution.

    uniforms, (max_length, n), hold the random numbers in [0, 1): row r uses column r % n. Only the fewest tokens
    that hold the probability top_p take part (Holtzman et al. 2020).
    """

    def choose(position: int, rows: np.ndarray, log_probs: np.ndarray) -> np.ndarray:
        # the best token always counts 1, so nothing overflows; where all are forbidden the first is as good as any
        relative = np.subtract(
            log_probs, log_probs[:, :1], where=log_probs > -np.inf, out=np.full(log_probs.shape, -np.inf)
        )
        with np.errstate(over="ignore"):  # a tiny temperature leaves the others no probability, as it should
            cumulative = np.exp(relative / temperature).cumsum(axis=1)  # (rows, k)
        cumulative /= np.maximum(cumulative[:, -1:], np.finfo(float).tiny)
        last = log_probs.shape[1] - 1
        nucleus = np.minimum((cumulative < top_p).sum(axis=1), last)  # column of the last token that takes part
        mass = cumulative[np.arange(len(rows)), nucleus]
        draws = uniforms[position, rows % uniforms.shape[1]] * mass
        column: np.ndarray = (cumulative <= draws[:, None]).sum(axis=1)  # (rows,)
        return np.where(column > last, last, column)  # beyond it where no token has any probability

    return choose
