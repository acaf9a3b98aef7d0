"""Beam search over a batch, on arrays throughout: no loop over images or candidates."""

from dataclasses import dataclass

import numpy as np

from engine.decoding.hypotheses import Hypotheses, normalise
from engine.decoding.model import StepModel
from engine.decoding.rules import Rules


@dataclass(frozen=True, slots=True)
class Live:
    """The sentences still growing: `width` for each open image, best first; log_prob -inf marks an empty place."""

    images: np.ndarray  # (images,) which image of the batch
    tokens: np.ndarray  # (images, width, position)
    token_log_probs: np.ndarray  # (images, width, position)
    log_probs: np.ndarray  # (images, width) float64
    parent_rows: np.ndarray  # (images, width) row of the last step that each continues


def beam_search(
    model: StepModel, rules: Rules, *, beam_size: int, num_hypotheses: int, length_penalty: float
) -> Hypotheses:
    """Returns the num_hypotheses best sentences of each image.

    Each step ranks the 2 x beam_size best continuations of an image, so that ends never starve the live beams
    (the scheme of Wu et al. 2016 as in CTranslate2 and fairseq). An end counts if it ranks among the first
    beam_size. An image is settled when beam_size sentences have ended, or when no live one can overtake the
    worst that would be returned; it then leaves the batch.
    """
    found = Hypotheses.empty(model.images, num_hypotheses, rules.max_length)
    ended = np.zeros(model.images, np.int64)
    live = _start(model.images)
    last = np.full((model.images, 1), rules.start_id)
    for position in range(rules.max_length):
        rows = live.tokens.reshape(live.log_probs.size, position)
        ids, log_probs = model.step(
            last.ravel(), live.parent_rows.ravel(), rules.bias(rows), min(2 * beam_size, rules.vocabulary_size)
        )
        ranked = _select(live, ids, log_probs, 2 * beam_size)
        is_end = ranked.tokens[:, :, -1] == rules.end_id
        ended[live.images] += _collect(found, ranked, is_end, rules.max_length, beam_size, length_penalty)
        before, live = live, _continue(ranked, is_end, beam_size)
        best = live.log_probs[:, 0]  # (images,)
        _keep_stuck(found, before, best, rules.max_length, length_penalty)
        # log-probabilities only fall, so the greatest length gives the best score a live sentence can still reach
        reachable = normalise(best, rules.max_length, length_penalty)
        open_images = (ended[live.images] < beam_size) & (reachable > found.scores[live.images, -1])
        if not open_images.any():
            break
        live = _take(live, np.nonzero(open_images)[0])
        last = live.tokens[:, :, -1]
    else:
        found.add(
            live.images, _as_hypotheses(live, np.zeros_like(live.log_probs, bool), rules.max_length, length_penalty)
        )
    return found


def _start(images: int) -> Live:
    rows = np.arange(images)
    nothing = np.zeros((images, 1, 0), np.int64)
    return Live(rows, nothing, nothing.astype(np.float32), np.zeros((images, 1)), rows[:, None])


def _select(live: Live, ids: np.ndarray, log_probs: np.ndarray, candidates: int) -> Live:
    """Returns the best one-token continuations of each image, best first: (images, up to `candidates`)."""
    images, width = live.log_probs.shape
    k = ids.shape[1]
    totals = (live.log_probs.reshape(-1, 1) + log_probs).reshape(images, width * k)
    best = np.argsort(-totals, axis=1, kind="stable")[:, :candidates]  # (images, candidates)
    image, parent = np.arange(images)[:, None], best // k
    return Live(
        images=live.images,
        tokens=_append(live.tokens[image, parent], ids.reshape(images, -1)[image, best]),
        token_log_probs=_append(live.token_log_probs[image, parent], log_probs.reshape(images, -1)[image, best]),
        log_probs=totals[image, best],
        parent_rows=image * width + parent,
    )


def _append(sequences: np.ndarray, last: np.ndarray) -> np.ndarray:
    return np.concatenate((sequences, last[:, :, None]), axis=2)


def _collect(
    found: Hypotheses, ranked: Live, is_end: np.ndarray, max_length: int, beam_size: int, length_penalty: float
) -> np.ndarray:
    """Adds the ends among the first beam_size candidates to `found`; returns how many each image had (images,)."""
    complete = is_end[:, :beam_size] & (ranked.log_probs[:, :beam_size] > -np.inf)
    if complete.any():
        which = np.nonzero(complete.any(axis=1))[0]
        first = _pick(ranked, which[:, None], np.arange(complete.shape[1])[None])
        new = _as_hypotheses(first, complete[which], max_length, length_penalty)
        new.scores[~complete[which]] = -np.inf
        found.add(first.images, new)
    return np.asarray(complete.sum(axis=1))


def _continue(ranked: Live, is_end: np.ndarray, beam_size: int) -> Live:
    """Returns the first beam_size candidates that go on."""
    ranked.log_probs[is_end] = -np.inf
    order = np.argsort(is_end, axis=1, kind="stable")[:, :beam_size]  # those that go on first, in rank
    return _pick(ranked, np.arange(len(order))[:, None], order)


def _keep_stuck(found: Hypotheses, before: Live, best: np.ndarray, max_length: int, length_penalty: float) -> None:
    """Where the constraints left an image no way on and nothing is found, its sentences so far stand, unfinished."""
    stuck = np.nonzero((best == -np.inf) & (found.scores[before.images, 0] == -np.inf))[0]
    if len(stuck):
        rest = _take(before, stuck)
        found.add(rest.images, _as_hypotheses(rest, np.zeros_like(rest.log_probs, bool), max_length, length_penalty))


def _as_hypotheses(live: Live, finished: np.ndarray, max_length: int, length_penalty: float) -> Hypotheses:
    images, width, length = live.tokens.shape
    new = Hypotheses.empty(images, width, max_length)
    new.tokens[:, :, :length] = live.tokens
    new.token_log_probs[:, :, :length] = live.token_log_probs
    new.lengths[:] = length
    new.scores[:] = normalise(live.log_probs, max(length, 1), length_penalty)
    new.finished[:] = finished
    return new


def _take(live: Live, images: np.ndarray) -> Live:
    return Live(live.images[images], *(array[images] for array in _per_beam(live)))


def _pick(live: Live, image: np.ndarray, beam: np.ndarray) -> Live:
    return Live(live.images[image[:, 0]], *(array[image, beam] for array in _per_beam(live)))


def _per_beam(live: Live) -> tuple[np.ndarray, ...]:
    return live.tokens, live.token_log_probs, live.log_probs, live.parent_rows
