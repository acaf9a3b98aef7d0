"""Greedy decoding and sampling: each row chooses its next token by itself."""

from abc import abstractmethod
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from engine.decoding.constraints import AllowedTokens, TokenConstraints
from engine.decoding.hypotheses import LiveHypotheses, TokenHypothesis, divisors, joined, ranked
from engine.decoding.search import Draw, Search, common_prefix
from engine.decoding.step_request import StepKind, StepRequest

MANY = 64  # from this many candidates, finding them takes longer than computing the step


class RowSearch(Search):
    """Decodes num_rows sentences for each image. A row leaves as soon as it ends, an image with its last row."""

    def __init__(self, constraints: TokenConstraints, *, num_rows: int, length_penalty: float) -> None:
        self._constraints = constraints
        self._num_rows = num_rows
        self._divisors = divisors(constraints.max_length, length_penalty)
        self._live = LiveHypotheses(constraints.max_length, constraints.start_id)
        self._rows: list[tuple[_Image, int]] = []  # image and sample of each row
        self._temperatures = np.empty(0)  # (rows,), empty unless tokens are drawn
        self._uniforms = np.empty((0, constraints.max_length), np.float32)  # (rows, length), likewise
        self._last = np.empty(0, np.int64)  # (rows,) the tokens to feed
        self._parents = np.empty(0, np.int64)  # (rows,) the model's rows to continue
        self._allowed: AllowedTokens | None = None

    @abstractmethod
    def _bias_and_k(self, allowed: AllowedTokens) -> tuple[np.ndarray, int]:
        """Returns the two arguments of the step."""

    @abstractmethod
    def _choose(self, allowed: AllowedTokens, ids: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns the next token of each row as ids and log_probs, both (rows,); -inf if no token is allowed."""

    @property
    def owners(self) -> list[Any]:
        """Owners of the unfinished images: see Search."""
        return list(dict.fromkeys(image.owner for image, _ in self._rows))

    def add(self, owners: Sequence[Any], state_rows: np.ndarray, draws: Sequence[Draw] = ()) -> None:
        """Adds images: see Search."""
        rows = len(owners) * self._num_rows
        for owner in owners:
            image = _Image(owner, [None] * self._num_rows, self._num_rows)
            self._rows += [(image, sample) for sample in range(self._num_rows)]
        self._last = joined(self._last, np.full(rows, self._constraints.start_id))
        self._parents = joined(self._parents, np.repeat(state_rows, self._num_rows))
        self._live.add(rows)
        if draws:
            heats = np.repeat([float(draw.temperature) for draw in draws], self._num_rows)
            self._temperatures = np.concatenate((self._temperatures, heats))
            self._uniforms = np.concatenate((self._uniforms, self._numbers([draw.seed for draw in draws])))

    def remove(self, owners: set[Any]) -> None:
        """Removes images: see Search."""
        going = np.array([i for i, (image, _) in enumerate(self._rows) if image.owner not in owners], np.int64)
        self._last, self._parents = self._last[going], self._parents[going]
        self._keep_rows(going)

    def next_step(self) -> StepRequest:
        """Returns the next step: see Search."""
        live = self._live
        self._allowed = self._constraints.allowed(live.written(), live.positions)
        bias, k = self._bias_and_k(self._allowed)
        if self.kind.method != "draw":
            return StepRequest(self.kind, self._last, self._parents, bias, k)
        return StepRequest(self.kind, self._last, self._parents, bias, k, self._temperatures, self._drawn_from())

    def advance(
        self, ids: np.ndarray, values: np.ndarray, first_row: int = 0
    ) -> list[tuple[Any, list[TokenHypothesis]]]:
        """Processes the step's results: see Search."""
        assert self._allowed is not None, "call next_step first"
        last, gained = self._choose(self._allowed, ids, values)
        live, end = self._live, self._constraints.end_id
        full = live.longest == self._constraints.max_length - 1
        done: list[tuple[Any, list[TokenHypothesis]]] = []
        if full or end in last.tolist() or -np.inf in gained.tolist():
            stuck = gained == -np.inf  # no token is allowed: the sentence stays unfinished
            over = stuck | (last == end)
            if full:
                over |= live.begin == live.column - live.longest
            for row in np.nonzero(over)[0].tolist():
                image, sample = self._rows[row]
                word = [] if stuck[row] else [(int(last[row]), float(gained[row]))]
                image.sentences[sample] = self._sentence(*live.tokens_and_log_probs(row, *word))
                image.left -= 1
                if not image.left:
                    done.append((image.owner, ranked(filter(None, image.sentences), self._num_rows)))
            going = np.nonzero(~over)[0]
            last, gained = last[going], gained[going]
            self._keep_rows(going)
            self._parents = going + first_row
        else:
            self._parents = np.arange(first_row, first_row + len(last))
        self._last = last.copy()
        live.append(last, gained)
        return done

    def owners_of_rows(self, rows: np.ndarray) -> list[Any]:
        """Returns the images of rows: see Search."""
        return list(dict.fromkeys(self._rows[row][0].owner for row in np.nonzero(rows)[0].tolist()))

    def stable_tokens(self, owners: Collection[Any]) -> Iterator[tuple[Any, list[int]]]:
        """Yields the tokens that can no longer change: see Search."""
        rows: dict[Any, list[int]] = {}
        for row, (image, _) in enumerate(self._rows):
            if image.owner in owners:
                rows.setdefault(image.owner, []).append(row)
        for owner, its_rows in rows.items():
            ended = [one.tokens for one in self._rows[its_rows[0]][0].sentences if one is not None]
            yield owner, common_prefix([*map(self._live.tokens_of, its_rows), *ended])

    def _keep_rows(self, rows: np.ndarray) -> None:
        self._live.take(rows)
        self._rows = [self._rows[row] for row in rows.tolist()]
        if len(self._uniforms):
            self._temperatures, self._uniforms = self._temperatures[rows], self._uniforms[rows]

    def _sentence(self, tokens: np.ndarray, log_probs: np.ndarray) -> TokenHypothesis:
        padded = np.zeros(self._constraints.max_length, np.float32)
        padded[: len(log_probs)] = log_probs
        score = float(padded.sum(dtype=np.float64)) / self._divisors[len(tokens)]
        return TokenHypothesis(
            tokens, log_probs, score, finished=bool(len(tokens) and tokens[-1] == self._constraints.end_id)
        )

    def _numbers(self, seeds: Sequence[int | None]) -> np.ndarray:
        """Returns random numbers in (0, 1] for new images, float32 (rows, length)."""
        shape = self._constraints.max_length, self._num_rows
        generators = {seed: np.random.default_rng(seed) for seed in set(seeds)}
        numbers = {seed: 1 - generators[seed].random(shape, dtype=np.float32).T for seed in set(seeds) - {None}}
        anew = (1 - generators[None].random(shape, dtype=np.float32).T for seed in seeds if seed is None)
        return np.concatenate([next(anew) if seed is None else numbers[seed] for seed in seeds])

    def _drawn_from(self) -> np.ndarray:
        """Returns the random number of each row for this step, float32 (rows,)."""
        return self._uniforms[np.arange(len(self._uniforms)), self._live.column - self._live.begin]


@dataclass(slots=True)
class _Image:
    """An image and its ended sentences."""

    owner: Any
    sentences: list[TokenHypothesis | None]
    left: int  # rows still live


class GreedySearch(RowSearch):
    """Takes the best token of each row."""

    kind = StepKind("step")

    def _bias_and_k(self, allowed: AllowedTokens) -> tuple[np.ndarray, int]:
        return allowed.bias, allowed.candidates(1)

    def _choose(self, allowed: AllowedTokens, ids: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return allowed.best(ids, values)


class FullSampling(RowSearch):
    """Draws from p ** (1 / temperature) over the whole vocabulary."""

    kind = StepKind("draw")

    def _bias_and_k(self, allowed: AllowedTokens) -> tuple[np.ndarray, int]:
        return allowed.mask(), 0

    def _choose(self, allowed: AllowedTokens, ids: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return ids, values  # the model drew


class TruncatedSampling(RowSearch):
    """Draws from p ** (1 / temperature) over the k best tokens, limited to the fewest whose sum reaches top_p.

    That is nucleus sampling (Holtzman et al. 2020). A row takes the first token, from the likeliest on, at which the
    cumulative distribution reaches its random number.
    """

    def __init__(
        self, constraints: TokenConstraints, *, k: int, top_p: float, num_rows: int, length_penalty: float
    ) -> None:
        super().__init__(constraints, num_rows=num_rows, length_penalty=length_penalty)
        self.kind = StepKind("step", many=k > MANY)
        self._k = k
        self._top_p = top_p

    def _bias_and_k(self, allowed: AllowedTokens) -> tuple[np.ndarray, int]:
        return allowed.mask(), self._k

    def _choose(self, allowed: AllowedTokens, ids: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        # the best token always counts 1, so nothing overflows; if all are forbidden, the first will do
        best = np.maximum(values[:, :1], np.finfo(np.float32).min)
        heats = self._temperatures[:, None]
        with np.errstate(over="ignore"):  # at a tiny temperature the others rightly get probability 0
            cumulative = np.exp((values - best).astype(np.float64) / heats).cumsum(axis=1)  # (rows, k)
        rows = np.arange(len(ids))
        nucleus = (cumulative < self._top_p * cumulative[:, -1:]).sum(axis=1)  # index of the last token in the nucleus
        draws = self._drawn_from() * cumulative[rows, nucleus]
        column = (cumulative < draws[:, None]).sum(axis=1)  # (rows,)
        return ids[rows, column], values[rows, column]
