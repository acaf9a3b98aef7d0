"""Beam search over images at any stage, vectorised: no Python loop over live hypotheses or candidates."""

import bisect
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from engine.decoding.constraints import AllowedTokens, TokenConstraints
from engine.decoding.hypotheses import LiveHypotheses, TokenHypothesis, divisors, joined, ranked
from engine.decoding.search import Draw, Search, common_prefix
from engine.decoding.step_request import StepKind, StepRequest


@dataclass(slots=True)
class _Ended:
    """The ended hypotheses of one image."""

    most: int  # how many will be returned
    sentences: list[TokenHypothesis] = field(default_factory=list)
    _best: list[float] = field(default_factory=list)  # scores, rising, of the best `most`

    @property
    def worst(self) -> float:
        """Score of the worst that would be returned; -inf while there are fewer than `most`."""
        return self._best[0] if len(self._best) == self.most else -np.inf

    def add(self, sentence: TokenHypothesis) -> None:
        self.sentences.append(sentence)
        bisect.insort(self._best, sentence.score)
        del self._best[: -self.most]


class BeamSearch(Search):
    """Finds the num_hypotheses best sentences for each image.

    Each step ranks the 2 x beam_size best continuations of an image, so that END never starves the live beams
    (the scheme of Wu et al. 2016 as in CTranslate2 and fairseq); the beam_size + 1 best of each hypothesis are enough
    for that. END counts if it ranks among the first beam_size. An image is done, and leaves, when beam_size hypotheses
    have ended or when no live one can overtake the worst that would be returned.

    An image has beam_size rows from its first step on; a total of -inf marks an unused row.
    """

    kind = StepKind("step")

    def __init__(
        self, constraints: TokenConstraints, *, beam_size: int, num_hypotheses: int, length_penalty: float
    ) -> None:
        self._owners: list[Any] = []
        self._constraints = constraints
        self._width = beam_size
        self._most = num_hypotheses
        self._divisors = divisors(constraints.max_length, length_penalty)
        self._ended: list[_Ended] = []
        self._counts = np.empty(0, np.int64)  # (images,) finished sentences
        self._worst = np.empty(0)  # (images,)
        self._totals = np.empty((0, beam_size))  # (images, beam_size) log-probabilities, best first
        self._live = LiveHypotheses(constraints.max_length, constraints.start_id)
        self._last = np.empty(0, np.int64)  # (rows,) the tokens to feed
        self._parents = np.empty(0, np.int64)  # (rows,) the model's rows to continue
        self._allowed: AllowedTokens | None = None

    @property
    def owners(self) -> list[Any]:
        """Owners of the unfinished images: see Search."""
        return self._owners

    def add(self, owners: Sequence[Any], state_rows: np.ndarray, draws: Sequence[Draw] = ()) -> None:
        """Adds images: see Search."""
        images, rows = len(owners), len(owners) * self._width
        totals = np.full((images, self._width), -np.inf)
        totals[:, 0] = 0  # all rows of an image are still the same, so only one counts
        self._owners += owners
        self._ended += [_Ended(self._most) for _ in owners]
        self._counts = joined(self._counts, np.zeros(images, np.int64))
        self._worst = joined(self._worst, np.full(images, -np.inf))
        self._totals = joined(self._totals, totals)
        self._last = joined(self._last, np.full(rows, self._constraints.start_id))
        self._parents = joined(self._parents, np.repeat(state_rows, self._width))
        self._live.add(rows)

    def remove(self, owners: set[Any]) -> None:
        """Removes images: see Search."""
        kept = np.array([owner not in owners for owner in self.owners])
        rows = np.nonzero(np.repeat(kept, self._width))[0]
        self._last, self._parents, self._totals = self._last[rows], self._parents[rows], self._totals[kept]
        self._live.take(rows)
        self._keep(kept)

    def next_step(self) -> StepRequest:
        """Returns the next step: see Search."""
        live = self._live
        self._allowed = self._constraints.allowed(live.written(), live.positions)
        return StepRequest(
            self.kind, self._last, self._parents, self._allowed.bias, self._allowed.candidates(self._width + 1)
        )

    def advance(
        self, ids: np.ndarray, values: np.ndarray, first_row: int = 0
    ) -> list[tuple[Any, list[TokenHypothesis]]]:
        """Processes the step's results: see Search."""
        assert self._allowed is not None, "call next_step first"
        log_probs, images, k = self._allowed.mask_banned(ids, values), len(self.owners), ids.shape[1]
        sums = (self._totals.reshape(-1, 1) + log_probs).reshape(images, -1)  # (images, width * k)
        best = (-sums).argsort(axis=1, kind="stable")[:, : 2 * self._width]
        best += np.arange(0, sums.size, sums.shape[1])[:, None]
        words = Ranked(best // k, ids.ravel()[best], log_probs.ravel()[best], sums.ravel()[best])
        is_end = words.ids == self._constraints.end_id
        going = words.first(self._width)
        if np.count_nonzero(is_end):
            self._add(going, is_end[:, : self._width], finished=True)
            going = words.first(self._width, ~is_end)
        done, leaving = self._settle(going), []
        if np.count_nonzero(done):
            leaving = [(self.owners[i], ranked(self._ended[i].sentences, self._most)) for i in np.nonzero(done)[0]]
            going = going.of(~done)
            self._keep(~done)
        rows = going.rows.ravel()
        self._live.take(rows)
        self._last, self._totals, self._parents = going.ids.ravel(), going.totals, rows + first_row
        self._live.append(self._last, going.log_probs.ravel())
        return leaving

    def owners_of_rows(self, rows: np.ndarray) -> list[Any]:
        """Returns the images of rows: see Search."""
        return [self.owners[i] for i in np.nonzero(rows.reshape(-1, self._width).any(axis=1))[0]]

    def stable_tokens(self, owners: Collection[Any]) -> Iterator[tuple[Any, list[int]]]:
        """Yields the tokens that can no longer change: see Search."""
        for image, owner in enumerate(self.owners):
            if owner in owners:
                ended = [one.tokens for one in ranked(self._ended[image].sentences, 1)]
                yield owner, common_prefix([*(self._live.tokens_of(row) for row, _ in self._live_rows(image)), *ended])

    def _settle(self, going: "Ranked") -> np.ndarray:
        """Returns which images are done, bool (images,), and ends the live hypotheses that cannot continue."""
        likeliest = going.totals[:, 0]
        # if the constraints allow no continuation and nothing has ended, keep the sentences so far as unfinished
        if -np.inf in likeliest.tolist():
            for image in np.nonzero(likeliest == -np.inf)[0].tolist():
                if not self._ended[image].sentences:
                    self._keep_live(image)
        # log-probabilities only fall, so the greatest length gives the best score a live hypothesis can still reach
        reachable = likeliest / self._divisors[-1]
        done = (self._counts >= self._width) | (reachable <= self._worst)
        live = self._live
        if live.longest == self._constraints.max_length - 1:
            full = (live.begin == live.column - live.longest)[going.rows[:, 0]] & ~done
            self._add(going, np.repeat(full[:, None], self._width, axis=1), finished=False)
            done |= full
        return done

    def _add(self, words: "Ranked", wanted: np.ndarray, finished: bool) -> None:
        """Adds the hypotheses that these words complete to the ended ones; wanted is bool (images, width)."""
        for image, place in zip(*np.nonzero(wanted & (words.totals > -np.inf)), strict=True):
            row, total = int(words.rows[image, place]), float(words.totals[image, place])
            last = int(words.ids[image, place]), float(words.log_probs[image, place])
            tokens, log_probs = self._live.tokens_and_log_probs(row, last)
            score = total / self._divisors[len(tokens)]
            self._ended[image].add(TokenHypothesis(tokens, log_probs, score, finished))
            self._worst[image] = self._ended[image].worst
            self._counts[image] += finished

    def _keep_live(self, image: int) -> None:
        """Adds an image's hypotheses, as they were before this step, to the ended ones."""
        for row, total in self._live_rows(image):
            tokens, log_probs = self._live.tokens_and_log_probs(row)
            score = total / self._divisors[len(tokens)]
            self._ended[image].add(TokenHypothesis(tokens, log_probs, score, False))

    def _live_rows(self, image: int) -> list[tuple[int, float]]:
        """Returns the rows of an image that are in use, each with its log-probability."""
        first = image * self._width
        return [(first + i, total) for i, total in enumerate(self._totals[image].tolist()) if total > -np.inf]

    def _keep(self, kept: np.ndarray) -> None:
        """Keeps only these images, bool (images,)."""
        stay = np.nonzero(kept)[0].tolist()
        self._owners, self._ended = [self.owners[i] for i in stay], [self._ended[i] for i in stay]
        self._counts, self._worst = self._counts[kept], self._worst[kept]


@dataclass(frozen=True, slots=True)
class Ranked:
    """Continuations of each image's live hypotheses by one token, best first; all fields are (images, candidates)."""

    rows: np.ndarray  # the row of the step that each continues
    ids: np.ndarray
    log_probs: np.ndarray  # of the token
    totals: np.ndarray  # of the hypothesis, float64

    def first(self, width: int, wanted: np.ndarray | None = None) -> "Ranked":
        """Returns the first `width` wanted ones by rank, padded with others that get the total -inf."""
        if wanted is None:
            return Ranked(self.rows[:, :width], self.ids[:, :width], self.log_probs[:, :width], self.totals[:, :width])
        order = np.argsort(~wanted, axis=1, kind="stable")[:, :width]
        order += (np.arange(len(order)) * wanted.shape[1])[:, None]
        rows, ids, log_probs, totals, wanted = (
            array.ravel()[order] for array in (self.rows, self.ids, self.log_probs, self.totals, wanted)
        )
        return Ranked(rows, ids, log_probs, np.where(wanted, totals, -np.inf))

    def of(self, images: np.ndarray) -> "Ranked":
        """Returns the rows of some images, bool (images,)."""
        return Ranked(self.rows[images], self.ids[images], self.log_probs[images], self.totals[images])
