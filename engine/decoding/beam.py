"""Beam search over images at any stage, on arrays throughout: no loop over live sentences or candidates."""

import bisect
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from engine.decoding.allowed import Allowed
from engine.decoding.constraints import Rules
from engine.decoding.hypotheses import Growing, Sentence, divisors, joined, ranked
from engine.decoding.search import Draw, Search, common
from engine.decoding.step_request import Ask, Kind


@dataclass(slots=True)
class _Ended:
    """The sentences of one image that stand."""

    most: int  # that will be returned
    sentences: list[Sentence] = field(default_factory=list)
    _best: list[float] = field(default_factory=list)  # scores, rising, of those that would be returned

    @property
    def worst(self) -> float:
        """Score of the last that would be returned; -inf while there are fewer."""
        return self._best[0] if len(self._best) == self.most else -np.inf

    def add(self, sentence: Sentence) -> None:
        self.sentences.append(sentence)
        bisect.insort(self._best, sentence.score)
        del self._best[: -self.most]


class BeamSearch(Search):
    """Finds the num_hypotheses best sentences of each image.

    Each step ranks the 2 x beam_size best continuations of an image, so that ends never starve the live beams
    (the scheme of Wu et al. 2016 as in CTranslate2 and fairseq); the beam_size + 1 best of each sentence are enough
    for that. An end counts if it ranks among the first beam_size. An image is settled when beam_size sentences have
    ended, or when no live one can overtake the worst that would be returned; it then leaves.

    An image has one row in its first step and beam_size from then on; a total of -inf marks an empty place.
    """

    kind = Kind("step")

    def __init__(self, rules: Rules, *, beam_size: int, num_hypotheses: int, length_penalty: float) -> None:
        self.owners: list[Any] = []
        self._rules = rules
        self._width = beam_size
        self._most = num_hypotheses
        self._divisors = divisors(rules.max_length, length_penalty)
        self._ended: list[_Ended] = []
        self._counts = np.empty(0, np.int64)  # (images,) finished sentences
        self._worst = np.empty(0)  # (images,)
        self._totals = np.empty((0, beam_size))  # (images, beam_size) log-probabilities, best first
        self._fresh = 0  # images, the last ones, that have only one row yet
        self._growing = Growing(rules.max_length, rules.start_id)
        self._last = np.empty(0, np.int64)  # (rows,) the tokens to feed
        self._parents = np.empty(0, np.int64)  # (rows,) the model's rows to continue
        self._allowed: Allowed | None = None

    def join(self, owners: Sequence[Any], state_rows: np.ndarray, draws: Sequence[Draw] = ()) -> None:
        """Takes images in: see Search."""
        images = len(owners)
        totals = np.full((images, self._width), -np.inf)
        totals[:, 0] = 0
        self.owners += owners
        self._ended += [_Ended(self._most) for _ in owners]
        self._counts = joined(self._counts, np.zeros(images, np.int64))
        self._worst = joined(self._worst, np.full(images, -np.inf))
        self._totals = joined(self._totals, totals)
        self._last = joined(self._last, np.full(images, self._rules.start_id))
        self._parents = joined(self._parents, state_rows)
        self._growing.join(images)
        self._fresh += images

    def leave(self, owners: set[Any]) -> None:
        """Gives up images: see Search."""
        kept = np.array([owner not in owners for owner in self.owners])
        rows = np.nonzero(kept[self._image_of_row()])[0]
        self._fresh = int(kept[len(kept) - self._fresh :].sum())
        self._last, self._parents, self._totals = self._last[rows], self._parents[rows], self._totals[kept]
        self._growing.take(rows)
        self._keep(kept)

    def ask(self) -> Ask:
        """Returns the next step: see Search."""
        growing = self._growing
        self._allowed = self._rules.allowed(growing.written(), growing.positions)
        return Ask(self.kind, self._last, self._parents, self._allowed.bias, self._allowed.candidates(self._width + 1))

    def tell(self, ids: np.ndarray, values: np.ndarray, first_row: int) -> list[tuple[Any, list[Sentence]]]:
        """Takes the answer: see Search."""
        assert self._allowed is not None, "it asked before"
        log_probs, images, k = self._allowed.strike(ids, values), len(self.owners), ids.shape[1]
        places = self._rows_of_places() if self._fresh else None  # (images * width,)
        found = log_probs if places is None else log_probs[places]
        sums = (self._totals.reshape(-1, 1) + found).reshape(images, -1)  # (images, width * k)
        best = (-sums).argsort(axis=1, kind="stable")[:, : 2 * self._width]
        best += np.arange(0, sums.size, sums.shape[1])[:, None]
        totals = sums.ravel()[best]
        at = best if places is None else places[best // k] * k + best % k  # where in ids and log_probs
        words = Ranked(at // k, ids.ravel()[at], log_probs.ravel()[at], totals)
        is_end = words.ids == self._rules.end_id
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
        self._growing.take(rows)
        self._last, self._totals, self._parents, self._fresh = going.ids.ravel(), going.totals, rows + first_row, 0
        self._growing.write(self._last, going.log_probs.ravel())
        return leaving

    def owners_of(self, rows: np.ndarray) -> list[Any]:
        """Returns the images of rows: see Search."""
        return [self.owners[image] for image in sorted(set(self._image_of_row()[rows].tolist()))]

    def standing(self, owners: Collection[Any]) -> Iterator[tuple[Any, list[int]]]:
        """Yields the tokens that can no longer change: see Search."""
        rows: list[list[int]] = [[] for _ in self.owners]
        live = np.nonzero(self._row_totals() > -np.inf)[0]
        for row, image in zip(live.tolist(), self._image_of_row()[live].tolist(), strict=True):
            rows[image].append(row)
        for image, owner in enumerate(self.owners):
            if owner in owners:
                ended = [one.tokens for one in ranked(self._ended[image].sentences, 1)]
                yield owner, common([*map(self._growing.tokens_of, rows[image]), *ended])

    def _settle(self, going: "Ranked") -> np.ndarray:
        """Returns which images are done, bool (images,), and adds the live sentences that then stand."""
        likeliest = going.totals[:, 0]
        # where the constraints leave an image no way on and nothing is found, its sentences so far stand, unfinished
        if -np.inf in likeliest.tolist():
            for image in np.nonzero(likeliest == -np.inf)[0].tolist():
                if not self._ended[image].sentences:
                    self._keep_live(image)
        # log-probabilities only fall, so the greatest length gives the best score a live sentence can still reach
        reachable = likeliest / self._divisors[-1]
        done = (self._counts >= self._width) | (reachable <= self._worst)
        growing = self._growing
        if growing.longest == self._rules.max_length - 1:
            full = (growing.begin == growing.column - growing.longest)[going.rows[:, 0]] & ~done
            self._add(going, np.repeat(full[:, None], self._width, axis=1), finished=False)
            done |= full
        return done

    def _add(self, words: "Ranked", wanted: np.ndarray, finished: bool) -> None:
        """Adds some of the sentences that these words continue, wanted bool (images, width), to what has ended."""
        for image, place in zip(*np.nonzero(wanted & (words.totals > -np.inf)), strict=True):
            row, total = int(words.rows[image, place]), float(words.totals[image, place])
            last = int(words.ids[image, place]), float(words.log_probs[image, place])
            tokens, log_probs = self._growing.sentence(row, last)
            score = total / self._divisors[len(tokens)]
            self._ended[image].add(Sentence(tokens, log_probs, score, finished))
            self._worst[image] = self._ended[image].worst
            self._counts[image] += finished

    def _keep_live(self, image: int) -> None:
        """Adds the sentences of an image as they stood before this step to what has ended."""
        rows = np.nonzero(self._image_of_row() == image)[0]
        for row, total in zip(rows.tolist(), self._row_totals()[rows].tolist(), strict=True):
            if total > -np.inf:
                tokens, log_probs = self._growing.sentence(row)
                score = total / self._divisors[len(tokens)]
                self._ended[image].add(Sentence(tokens, log_probs, score, False))

    def _keep(self, kept: np.ndarray) -> None:
        """Goes on with some images, bool (images,)."""
        stay = np.nonzero(kept)[0].tolist()
        self.owners, self._ended = [self.owners[i] for i in stay], [self._ended[i] for i in stay]
        self._counts, self._worst = self._counts[kept], self._worst[kept]

    def _image_of_row(self) -> np.ndarray:
        """Returns which image each row is of, int64 (rows,)."""
        old = len(self.owners) - self._fresh
        return np.repeat(np.arange(len(self.owners)), [self._width] * old + [1] * self._fresh)

    def _rows_of_places(self) -> np.ndarray:
        """Returns the row that each place continues, int64 (images * width,); empty ones of a first step need none."""
        old = (len(self.owners) - self._fresh) * self._width
        return np.concatenate((np.arange(old), np.repeat(np.arange(old, old + self._fresh), self._width)))

    def _row_totals(self) -> np.ndarray:
        """Returns the log-probability of each row's sentence, float64 (rows,)."""
        old = len(self.owners) - self._fresh
        return np.concatenate((self._totals[:old].ravel(), self._totals[old:, 0]))


@dataclass(frozen=True, slots=True)
class Ranked:
    """Continuations of each image's live sentences by a token, best first; all fields are (images, candidates)."""

    rows: np.ndarray  # which row of the step each continues
    ids: np.ndarray
    log_probs: np.ndarray  # of the token
    totals: np.ndarray  # of the sentence, float64

    def first(self, width: int, wanted: np.ndarray | None = None) -> "Ranked":
        """Returns the first `width` that are wanted, in rank; where there are fewer, others with the total -inf."""
        if wanted is None:
            return Ranked(self.rows[:, :width], self.ids[:, :width], self.log_probs[:, :width], self.totals[:, :width])
        order = np.argsort(~wanted, axis=1, kind="stable")[:, :width]
        order += (np.arange(len(order)) * wanted.shape[1])[:, None]
        rows, ids, log_probs, totals, wanted = (
            array.ravel()[order] for array in (self.rows, self.ids, self.log_probs, self.totals, wanted)
        )
        return Ranked(rows, ids, log_probs, np.where(wanted, totals, -np.inf))

    def of(self, images: np.ndarray) -> "Ranked":
        """Returns those of some images, bool (images,)."""
        return Ranked(self.rows[images], self.ids[images], self.log_probs[images], self.totals[images])
