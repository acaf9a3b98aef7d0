"""Greedy decoding and sampling: each row chooses its next token by itself."""

from collections.abc import Callable

import numpy as np

from engine.decoding.allowed import Allowed
from engine.decoding.hypotheses import Hypotheses, normalise
from engine.decoding.model import StepModel
from engine.decoding.rules import Rules

Choose = Callable[[int, np.ndarray, np.ndarray, np.ndarray, Allowed], tuple[np.ndarray, np.ndarray]]
"""choose(position, rows, token_ids, parent_rows, allowed) feeds the live rows' tokens to the model and returns what
follows: ids and log_probs, both (rows,), -inf where nothing may. rows, image * num_rows + sample, are their numbers."""


def decode_rows(images: int, rules: Rules, choose: Choose, *, num_rows: int, length_penalty: float) -> Hypotheses:
    """Decodes num_rows sentences for each image; a row that has ended leaves the batch."""
    found = Hypotheses.empty(images, num_rows, rules.max_length)
    tokens, token_log_probs = (array.reshape(-1, rules.max_length) for array in found.arrays()[:2])  # (rows, length)
    lengths, finished = found.lengths.reshape(-1), found.finished.reshape(-1)  # views, as all of these
    rows = np.arange(images * num_rows)
    last, parents = np.full(len(rows), rules.start_id), rows // num_rows
    for position in range(rules.max_length):
        last, gained = choose(position, rows, last, parents, rules.allowed(position, tokens, rows))
        possible = gained != -np.inf  # the constraints may leave no way on: the sentence then stands unfinished
        ends = possible & (last == rules.end_id)
        written = rows if possible.all() else rows[possible]
        tokens[written, position], token_log_probs[written, position] = last[possible], gained[possible]
        lengths[written] = position + 1
        finished[rows[ends]] = True
        going = np.nonzero(possible & ~ends)[0]
        if not len(going):
            break
        rows, last, parents = rows[going], last[going], going
    totals = found.token_log_probs.sum(axis=2, dtype=np.float64)
    found.scores[:] = normalise(totals, np.maximum(found.lengths, 1), length_penalty)
    return found.ranked()


def likeliest(model: StepModel) -> Choose:
    """Chooses the best token of each row."""

    def choose(
        position: int, rows: np.ndarray, token_ids: np.ndarray, parent_rows: np.ndarray, allowed: Allowed
    ) -> tuple[np.ndarray, np.ndarray]:
        ids, log_probs = allowed.best(model, token_ids, parent_rows, 1)
        if allowed.banned is None:
            return ids[:, 0], log_probs[:, 0]
        best = np.arange(len(ids)), log_probs.argmax(axis=1)
        return ids[best], log_probs[best]

    return choose


def unscored(model: StepModel) -> Choose:
    """Chooses the best token of each row and knows of none how likely it is: log_probs are NaN."""
    scored = likeliest(model)

    def choose(
        position: int, rows: np.ndarray, token_ids: np.ndarray, parent_rows: np.ndarray, allowed: Allowed
    ) -> tuple[np.ndarray, np.ndarray]:
        if allowed.banned is None:
            ids, possible = model.best(token_ids, parent_rows, allowed.bias)
        else:
            ids, possible = scored(position, rows, token_ids, parent_rows, allowed)
        return ids, np.where(possible == -np.inf, possible, np.nan)

    return choose


def drawn(model: StepModel, uniforms: np.ndarray, temperature: float) -> Choose:
    """Draws from p ** (1 / temperature) over the whole vocabulary.

    uniforms, float32 (max_length, n), hold random numbers in (0, 1]: row r uses column r % n.
    """

    def choose(
        position: int, rows: np.ndarray, token_ids: np.ndarray, parent_rows: np.ndarray, allowed: Allowed
    ) -> tuple[np.ndarray, np.ndarray]:
        numbers = uniforms[position, rows % uniforms.shape[1]]
        return model.draw(token_ids, parent_rows, allowed.mask(), temperature, numbers)

    return choose


def drawn_from_best(model: StepModel, uniforms: np.ndarray, temperature: float, *, k: int, top_p: float) -> Choose:
    """Draws from p ** (1 / temperature) of the k best tokens, of which the fewest that hold top_p take part.

    That is the nucleus of Holtzman et al. 2020. uniforms are those of `drawn`; here a row takes the first token, the
    likeliest first, with which the cumulative distribution reaches its number.
    """

    def choose(
        position: int, rows: np.ndarray, token_ids: np.ndarray, parent_rows: np.ndarray, allowed: Allowed
    ) -> tuple[np.ndarray, np.ndarray]:
        ids, log_probs = model.step(token_ids, parent_rows, allowed.mask(), k)
        # the best token always counts 1, so nothing overflows; where all are forbidden the first is as good as any
        best = np.maximum(log_probs[:, :1], np.finfo(np.float32).min)
        with np.errstate(over="ignore"):  # a tiny temperature leaves the others no probability, as it should
            cumulative = np.exp((log_probs - best).astype(np.float64) / temperature).cumsum(axis=1)  # (rows, k)
        places = np.arange(len(rows))
        nucleus = (cumulative < top_p * cumulative[:, -1:]).sum(axis=1)  # column of the last token that takes part
        draws = uniforms[position, rows % uniforms.shape[1]] * cumulative[places, nucleus]
        column = (cumulative < draws[:, None]).sum(axis=1)  # (rows,)
        return ids[places, column], log_probs[places, column]

    return choose
