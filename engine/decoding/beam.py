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
        ended[live.images] += _collect(found, ranked, is_end[:, :beam_size], length_penalty)
        before, live = live, _continue(ranked, is_end, beam_size)
        best = live.log_probs[:, 0]  # (images,)
        # where the constraints leave an image no way on and nothing is found, its sentences so far stand, unfinished
        stuck = np.nonzero((best == -np.inf) & (found.scores[before.images, 0] == -np.inf))[0]
        _keep(found, _take(before, stuck), length_penalty)
        # log-probabilities only fall, so the greatest length gives the best score a live sentence can still reach
        reachable = normalise(best, rules.max_length, length_penalty)
        open_images = (ended[live.images] < beam_size) & (reachable > found.scores[live.images, -1])
        if not open_images.any():
            break
        live = _take(live, np.nonzero(open_images)[0])
        last = live.tokens[:, :, -1]
    else:
        _keep(found, live, length_penalty)
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


def _collect(found: Hypotheses, ranked: Live, is_end: np.ndarray, length_penalty: float) -> np.ndarray:
    """Adds the ends, is_end (images, beam_size), to `found`; returns how many each image had (images,)."""
    complete = is_end & (ranked.log_probs[:, : is_end.shape[1]] > -np.inf)
    which = np.nonzero(complete.any(axis=1))[0]
    first = _pick(ranked, which[:, None], np.arange(complete.shape[1])[None])
    first.log_probs[~complete[which]] = -np.inf
    _keep(found, first, length_penalty, finished=True)
    return np.asarray(complete.sum(axis=1))


def _continue(ranked: Live, is_end: np.ndarray, beam_size: int) -> Live:
    """Returns the first beam_size candidates that go on."""
    ranked.log_probs[is_end] = -np.inf
    order = np.argsort(is_end, axis=1, kind="stable")[:, :beam_size]  # those that go on first, in rank
    return _pick(ranked, np.arange(len(order))[:, None], order)


def _keep(found: Hypotheses, live: Live, length_penalty: float, *, finished: bool = False) -> None:
    """Ranks sentences among those found."""
    images, width, length = live.tokens.shape
    if not images:
        return
    new = Hypotheses.empty(images, width, found.tokens.shape[2])
    new.tokens[:, :, :length] = live.tokens
    new.token_log_probs[:, :, :length] = live.token_log_probs
    new.lengths[:] = length
    new.scores[:] = normalise(live.log_probs, max(length, 1), length_penalty)
    new.finished[:] = finished & (new.scores > -np.inf)  # an empty place is no finished sentence
    found.add(live.images, new)


def _take(live: Live, images: np.ndarray) -> Live:
    return Live(live.images[images], *(array[images] for array in _per_beam(live)))


def _pick(live: Live, image: np.ndarray, beam: np.ndarray) -> Live:
    return Live(live.images[image[:, 0]], *(array[image, beam] for array in _per_beam(live)))


def _per_beam(live: Live) -> tuple[np.ndarray, ...]:
    return live.tokens, live.token_log_probs, live.log_probs, live.parent_rows
