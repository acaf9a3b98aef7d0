"""Beam search over a batch, on arrays throughout: no loop over images or candidates."""

from dataclasses import dataclass

import numpy as np

from engine.decoding.found import Found
from engine.decoding.hypotheses import Hypotheses
from engine.decoding.model import StepModel
from engine.decoding.rules import Rules


def beam_search(
    model: StepModel, rules: Rules, *, beam_size: int, num_hypotheses: int, length_penalty: float
) -> Hypotheses:
    """Returns the num_hypotheses best sentences of each image.

    Each step ranks the 2 x beam_size best continuations of an image, so that ends never starve the live beams
    (the scheme of Wu et al. 2016 as in CTranslate2 and fairseq); the beam_size + 1 best of each sentence are enough
    for that. An end counts if it ranks among the first beam_size. An image is settled when beam_size sentences have
    ended, or when no live one can overtake the worst that would be returned; it then leaves the batch.
    """
    found = Found(model.images, num_hypotheses, rules.max_length, length_penalty)
    live = Live(model.images, beam_size, rules)
    for position in range(rules.max_length):
        allowed = rules.allowed(position, live.tokens, slice(live.totals.size))
        ids, log_probs = allowed.best(model, live.last, live.parent_rows, beam_size + 1)
        ranked = Ranked.of(live.totals, ids, log_probs, 2 * beam_size)
        is_end = ranked.ids == rules.end_id
        _collect(found, live, ranked, is_end[:, :beam_size])
        going = ranked.first(beam_size, ~is_end)
        best = going.totals[:, 0]  # (images,)
        # where the constraints leave an image no way on and nothing is found, its sentences so far stand, unfinished
        stuck = (best == -np.inf) & (found.scores[live.images, 0] == -np.inf)
        if stuck.any():
            _keep(found, live, np.nonzero(stuck)[0])
        # log-probabilities only fall, so the greatest length gives the best score a live sentence can still reach
        reachable = found.score(best, rules.max_length)
        open_images = (found.ended[live.images] < beam_size) & (reachable > found.scores[live.images, -1])
        if not open_images.any():
            break
        live.advance(going, np.nonzero(open_images)[0])
    else:
        _keep(found, live, np.arange(len(live.images)))
    return found.best()


@dataclass(frozen=True, slots=True)
class Ranked:
    """Continuations of each image's live sentences by a token, best first; all fields are (images, candidates)."""

    rows: np.ndarray  # which row of the step each continues
    ids: np.ndarray
    log_probs: np.ndarray  # of the token
    totals: np.ndarray  # of the sentence, float64

    @classmethod
    def of(cls, totals: np.ndarray, ids: np.ndarray, log_probs: np.ndarray, candidates: int) -> "Ranked":
        """Ranks what a step returned, (rows, k), for live sentences of totals (images, width)."""
        images, k = len(totals), ids.shape[1]
        sums = (totals.reshape(-1, 1) + log_probs).reshape(images, -1)  # (images, width * k)
        best = np.argsort(-sums, axis=1, kind="stable")[:, :candidates]
        best += (np.arange(images) * sums.shape[1])[:, None]
        return cls(best // k, ids.ravel()[best], log_probs.ravel()[best], sums.ravel()[best])

    def first(self, width: int, wanted: np.ndarray) -> "Ranked":
        """Returns the first `width` that are wanted, in rank; where there are fewer, others with the total -inf."""
        order = np.argsort(~wanted, axis=1, kind="stable")[:, :width]
        order += (np.arange(len(order)) * wanted.shape[1])[:, None]
        rows, ids, log_probs, totals, wanted = (
            array.ravel()[order] for array in (self.rows, self.ids, self.log_probs, self.totals, wanted)
        )
        return Ranked(rows, ids, log_probs, np.where(wanted, totals, -np.inf))


class Live:
    """The sentences still growing: at first one for each image, then `width`; a total of -inf marks an empty place."""

    def __init__(self, images: int, width: int, rules: Rules) -> None:
        self.images = np.arange(images)  # which of the batch
        self.totals = np.zeros((images, 1))  # (images, width) log-probabilities of the sentences, best first
        self.position = 0  # tokens of each sentence so far
        self.last = np.full(images, rules.start_id)  # (rows,) the tokens to feed
        self.parent_rows = np.arange(images)  # (rows,) the rows of the last step to continue
        shape = images * width, rules.max_length
        # (rows, length), valid up to position; two of each take turns
        self.tokens, self._next_tokens = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
        self.token_log_probs, self._next_log_probs = np.zeros(shape, np.float32), np.zeros(shape, np.float32)

    def advance(self, going: Ranked, images: np.ndarray) -> None:
        """Goes on with these continuations of these images; the others leave."""
        self.images, self.totals = self.images[images], going.totals[images]
        self.parent_rows, self.last = going.rows[images].ravel(), going.ids[images].ravel()
        rows, place = slice(len(self.last)), self.position
        np.take(self.tokens, self.parent_rows, axis=0, out=self._next_tokens[rows], mode="clip")  # clip: no copy
        np.take(self.token_log_probs, self.parent_rows, axis=0, out=self._next_log_probs[rows], mode="clip")
        self._next_tokens[rows, place] = self.last
        self._next_log_probs[rows, place] = going.log_probs[images].ravel()
        self.tokens, self._next_tokens = self._next_tokens, self.tokens
        self.token_log_probs, self._next_log_probs = self._next_log_probs, self.token_log_probs
        self.position += 1

    def sentences(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns tokens and token_log_probs of some rows, (rows, position + 1): a last place is free."""
        return self.tokens[rows, : self.position + 1], self.token_log_probs[rows, : self.position + 1]


def _collect(found: Found, live: Live, ranked: Ranked, is_end: np.ndarray) -> None:
    """Adds the ends, is_end (images, beam_size), to what is found."""
    complete = is_end & (ranked.totals[:, : is_end.shape[1]] > -np.inf)
    image, place = np.nonzero(complete)
    if len(image):
        tokens, log_probs = live.sentences(ranked.rows[image, place])
        tokens[:, -1], log_probs[:, -1] = ranked.ids[image, place], ranked.log_probs[image, place]
        found.add(live.images[image], tokens, log_probs, ranked.totals[image, place], finished=True)


def _keep(found: Found, live: Live, images: np.ndarray) -> None:
    """Adds the live sentences of some images as they stand."""
    image, place = np.nonzero(live.totals[images] > -np.inf)
    image = images[image]
    tokens, log_probs = live.sentences(image * live.totals.shape[1] + place)
    tokens, log_probs = tokens[:, : live.position], log_probs[:, : live.position]
    found.add(live.images[image], tokens, log_probs, live.totals[image, place], finished=False)
