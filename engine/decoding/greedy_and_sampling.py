"""Greedy decoding and sampling: each row chooses its next token by itself."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from math import nan
from typing import Any, Protocol

import numpy as np

from engine.decoding.allowed import Allowed
from engine.decoding.constraints import Rules
from engine.decoding.hypotheses import Growing, Sentence, divisors, joined, ranked
from engine.decoding.search import Draw, Search, common
from engine.decoding.step_request import Ask, Kind

MANY = 64  # candidates of a step from which to find them takes longer than to compute what they are


class Choose(Protocol):
    """How a row chooses: which question it has, and what it takes of the answer."""

    kind: Kind

    def wants(self, allowed: Allowed) -> tuple[np.ndarray, int]:
        """Returns bias and k of the question."""
        ...

    def choose(
        self, allowed: Allowed, ids: np.ndarray, values: np.ndarray, temperatures: np.ndarray, uniforms: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Returns ids and log_probs, both (rows,), -inf where nothing may follow.

        temperatures and uniforms, random numbers in (0, 1], are (rows,) where tokens are drawn.
        """
        ...


class RowSearch(Search):
    """Decodes num_rows sentences for each image; a row that has ended leaves at once, an image with its last row."""

    def __init__(self, rules: Rules, choose: Choose, *, num_rows: int, length_penalty: float) -> None:
        self.kind = choose.kind
        self._rules = rules
        self._choose = choose
        self._num_rows = num_rows
        self._divisors = divisors(rules.max_length, length_penalty)
        self._growing = Growing(rules.max_length, rules.start_id)
        self._rows: list[tuple[_Image, int]] = []  # image and sample of each row
        self._temperatures = np.empty(0)  # (rows,), none where nothing is drawn
        self._uniforms = np.empty((0, rules.max_length), np.float32)  # (rows, length), likewise
        self._last = np.empty(0, np.int64)  # (rows,) the tokens to feed
        self._parents = np.empty(0, np.int64)  # (rows,) the model's rows to continue
        self._allowed: Allowed | None = None

    @property
    def owners(self) -> list[Any]:  # type: ignore[override]
        """Of the images that are not done: see Search."""
        return list(dict.fromkeys(image.owner for image, _ in self._rows))

    def join(self, owners: Sequence[Any], state_rows: np.ndarray, draws: Sequence[Draw] = ()) -> None:
        """Takes images in: see Search. The same seed gives an image the same numbers wherever it stands."""
        rows = len(owners) * self._num_rows
        for owner in owners:
            image = _Image(owner, [None] * self._num_rows, self._num_rows)
            self._rows += [(image, sample) for sample in range(self._num_rows)]
        self._last = joined(self._last, np.full(rows, self._rules.start_id))
        self._parents = joined(self._parents, np.repeat(state_rows, self._num_rows))
        self._growing.join(rows)
        if draws:
            heats = np.repeat([float(draw.temperature) for draw in draws], self._num_rows)
            self._temperatures = np.concatenate((self._temperatures, heats))
            self._uniforms = np.concatenate((self._uniforms, self._numbers([draw.seed for draw in draws])))

    def leave(self, owners: set[Any]) -> None:
        """Gives up images: see Search."""
        going = np.array([i for i, (image, _) in enumerate(self._rows) if image.owner not in owners], np.int64)
        self._last, self._parents = self._last[going], self._parents[going]
        self._go_on(going)

    def ask(self) -> Ask:
        """Returns the next step: see Search."""
        growing = self._growing
        self._allowed = self._rules.allowed(growing.written(), growing.positions)
        bias, k = self._choose.wants(self._allowed)
        if self.kind.verb != "draw":
            return Ask(self.kind, self._last, self._parents, bias, k)
        return Ask(self.kind, self._last, self._parents, bias, k, self._temperatures, self._drawn_from())

    def tell(self, ids: np.ndarray, values: np.ndarray, first_row: int) -> list[tuple[Any, list[Sentence]]]:
        """Takes the answer: see Search."""
        assert self._allowed is not None, "it asked before"
        last, gained = self._choose.choose(self._allowed, ids, values, self._temperatures, self._drawn_from())
        growing, end = self._growing, self._rules.end_id
        full = growing.longest == self._rules.max_length - 1
        done: list[tuple[Any, list[Sentence]]] = []
        if full or end in last.tolist() or -np.inf in gained.tolist():
            stuck = gained == -np.inf  # the constraints may leave no way on: the sentence then stands unfinished
            over = stuck | (last == end)
            if full:
                over |= growing.begin == growing.column - growing.longest
            for row in np.nonzero(over)[0].tolist():
                image, sample = self._rows[row]
                word = [] if stuck[row] else [(int(last[row]), float(gained[row]))]
                image.sentences[sample] = self._sentence(*growing.sentence(row, *word))
                image.left -= 1
                if not image.left:
                    done.append((image.owner, ranked(filter(None, image.sentences), self._num_rows)))
            going = np.nonzero(~over)[0]
            last, gained = last[going], gained[going]
            self._go_on(going)
            self._parents = going + first_row
        else:
            self._parents = np.arange(first_row, first_row + len(last))
        self._last = last.copy()
        growing.write(last, gained)
        return done

    def owners_of(self, rows: np.ndarray) -> list[Any]:
        """Returns the images of rows: see Search."""
        return list(dict.fromkeys(self._rows[row][0].owner for row in np.nonzero(rows)[0].tolist()))

    def standing(self, owners: Collection[Any]) -> Iterator[tuple[Any, list[int]]]:
        """Yields the tokens that can no longer change: see Search."""
        rows: dict[Any, list[int]] = {}
        for row, (image, _) in enumerate(self._rows):
            if image.owner in owners:
                rows.setdefault(image.owner, []).append(row)
        for owner, its_rows in rows.items():
            ended = [one.tokens for one in self._rows[its_rows[0]][0].sentences if one is not None]
            yield owner, common([*map(self._growing.tokens_of, its_rows), *ended])

    def _go_on(self, rows: np.ndarray) -> None:
        self._growing.take(rows)
        self._rows = [self._rows[row] for row in rows.tolist()]
        if len(self._uniforms):
            self._temperatures, self._uniforms = self._temperatures[rows], self._uniforms[rows]

    def _sentence(self, tokens: np.ndarray, log_probs: np.ndarray) -> Sentence:
        padded = np.zeros(self._rules.max_length, np.float32)
        padded[: len(log_probs)] = log_probs
        score = float(padded.sum(dtype=np.float64)) / self._divisors[len(tokens)]
        return Sentence(tokens, log_probs, score, finished=bool(len(tokens) and tokens[-1] == self._rules.end_id))

    def _numbers(self, seeds: Sequence[int | None]) -> np.ndarray:
        """Returns random numbers in (0, 1] for new images, float32 (rows, length)."""
        shape = self._rules.max_length, self._num_rows
        generators = {seed: np.random.default_rng(seed) for seed in set(seeds)}
        numbers = {seed: 1 - generators[seed].random(shape, dtype=np.float32).T for seed in set(seeds) - {None}}
        anew = (1 - generators[None].random(shape, dtype=np.float32).T for seed in seeds if seed is None)
        return np.concatenate([next(anew) if seed is None else numbers[seed] for seed in seeds])

    def _drawn_from(self) -> np.ndarray:
        """Returns the random number of each row for this step, float32 (rows,)."""
        if not len(self._uniforms):
            return self._uniforms[:, 0]
        return self._uniforms[np.arange(len(self._uniforms)), self._growing.column - self._growing.begin]


@dataclass(slots=True)
class _Image:
    """An image, and those of its sentences that have ended."""

    owner: Any
    sentences: list[Sentence | None]
    left: int  # rows that have not ended


class Likeliest(Choose):
    """Takes the best token of each row."""

    kind = Kind("step")

    def wants(self, allowed: Allowed) -> tuple[np.ndarray, int]:
        """Returns bias and k of the question."""
        return allowed.bias, allowed.candidates(1)

    def choose(
        self, allowed: Allowed, ids: np.ndarray, values: np.ndarray, temperatures: np.ndarray, uniforms: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Returns ids and log_probs."""
        return allowed.best(ids, values)


class Unscored(Likeliest):
    """Takes the best token of each row and knows of none how likely it is: log_probs are NaN."""

    def __init__(self, rules: Rules) -> None:
        self._plain = not (rules.bad_endings or rules.no_repeat_ngram_size)  # no token is banned by what was written
        self.kind = Kind("best") if self._plain else Kind("step")

    def wants(self, allowed: Allowed) -> tuple[np.ndarray, int]:
        """Returns bias and k of the question."""
        return (allowed.bias, 0) if self._plain else super().wants(allowed)

    def choose(
        self, allowed: Allowed, ids: np.ndarray, values: np.ndarray, temperatures: np.ndarray, uniforms: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Returns ids and NaN."""
        if not self._plain:
            ids, values = super().choose(allowed, ids, values, temperatures, uniforms)
        return ids, np.where(values == -np.inf, values, np.float32(nan))


class Drawn(Choose):
    """Draws from p ** (1 / temperature) over the whole vocabulary."""

    kind = Kind("draw")

    def wants(self, allowed: Allowed) -> tuple[np.ndarray, int]:
        """Returns bias and k of the question."""
        return allowed.mask(), 0

    def choose(
        self, allowed: Allowed, ids: np.ndarray, values: np.ndarray, temperatures: np.ndarray, uniforms: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Returns what the model drew."""
        return ids, values


class DrawnFromBest(Choose):
    """Draws from p ** (1 / temperature) of the k best tokens, of which the fewest that hold top_p take part.

    That is the nucleus of Holtzman et al. 2020. A row takes the first token, the likeliest first, with which the
    cumulative distribution reaches its random number.
    """

    def __init__(self, k: int, top_p: float) -> None:
        self.kind = Kind("step", many=k > MANY)
        self._k = k
        self._top_p = top_p

    def wants(self, allowed: Allowed) -> tuple[np.ndarray, int]:
        """Returns bias and k of the question."""
        return allowed.mask(), self._k

    def choose(
        self, allowed: Allowed, ids: np.ndarray, values: np.ndarray, temperatures: np.ndarray, uniforms: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Returns ids and log_probs."""
        # the best token always counts 1, so nothing overflows; where all are forbidden the first is as good as any
        best = np.maximum(values[:, :1], np.finfo(np.float32).min)
        with np.errstate(over="ignore"):  # a tiny temperature leaves the others no probability, as it should
            cumulative = np.exp((values - best).astype(np.float64) / temperatures[:, None]).cumsum(axis=1)  # (rows, k)
        rows = np.arange(len(ids))
        nucleus = (cumulative < self._top_p * cumulative[:, -1:]).sum(axis=1)  # last token that takes part
        draws = uniforms * cumulative[rows, nucleus]
        column = (cumulative < draws[:, None]).sum(axis=1)  # (rows,)
        return ids[rows, column], values[rows, column]
