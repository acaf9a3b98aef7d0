"""A fake decoder for the search tests: the next-word distribution is a fixed function of image and history."""

import itertools
from collections.abc import Iterator

import numpy as np

from engine.decoding.constraints import TokenConstraints
from engine.decoding.step_model import StepModel

START, END, AND = 0, 1, 3


class TableModel(StepModel):
    """Log-probabilities drawn per (image, history) from a seed: no batch, no beam, no state to get wrong.

    `names` tells which image stands at each place, so that a batch can be permuted.
    """

    def __init__(self, vocabulary_size: int, names: list[int], seed: int = 0, sharpness: float = 1.0) -> None:
        self.vocabulary_size = vocabulary_size
        self.seed = seed
        self.sharpness = sharpness
        self.histories: list[tuple[int, tuple[int, ...]]] = [(name, ()) for name in names]
        self.images = len(names)
        self.calls: list[int] = []
        self.known: dict[tuple[int, ...], np.ndarray] = {}

    def distribution(self, name: int, history: tuple[int, ...]) -> np.ndarray:
        """Returns the log-probabilities of every next word, float32 (vocabulary,)."""
        key = (self.seed, name, *history)
        if key not in self.known:
            logits = np.random.default_rng(key).normal(size=self.vocabulary_size) * self.sharpness
            self.known[key] = (logits - np.log(np.exp(logits).sum())).astype(np.float32)
        return self.known[key]

    def step(
        self, token_ids: np.ndarray, parent_rows: np.ndarray, bias: np.ndarray, k: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Answers as StepModel demands."""
        assert bias.shape in {(1, self.vocabulary_size), (len(token_ids), self.vocabulary_size)}
        parents = [self.histories[row] for row in parent_rows]
        self.histories = [(name, (*past, int(i))) for (name, past), i in zip(parents, token_ids, strict=True)]
        self.calls.append(len(token_ids))
        log_probs = np.stack([self.distribution(*history) for history in self.histories]) + bias
        ids = np.argsort(-log_probs, axis=1, kind="stable")[:, :k]
        return ids, np.take_along_axis(log_probs, ids, axis=1)


def rules(vocabulary_size: int, max_length: int, **constraints: object) -> TokenConstraints:
    """Returns rules for a vocabulary whose word 0 is START, word 1 is END and word 3 is "and"."""
    return TokenConstraints(
        vocabulary_size=vocabulary_size,
        start_id=START,
        end_id=END,
        max_length=max_length,
        **{"forbidden": (START,), "joint": AND, **constraints},  # type: ignore[arg-type]
    )


def every_sentence(
    model: TableModel, name: int, limits: TokenConstraints
) -> Iterator[tuple[tuple[int, ...], float, bool]]:
    """Yields (tokens, log_prob, finished) of every sentence that the rules allow, by plain enumeration."""
    words = [i for i in range(model.vocabulary_size) if i != END]
    for length in range(limits.max_length + 1):
        for body in itertools.product(words, repeat=length):
            endings = ((), False), ((END,), True)
            for ending, finished in endings:
                tokens = (*body, *ending)
                if (not finished and length < limits.max_length) or len(tokens) > limits.max_length:
                    continue
                if allowed(tokens, limits):
                    yield tokens, log_prob(model, name, tokens), finished


def log_prob(model: TableModel, name: int, tokens: tuple[int, ...]) -> float:
    """Adds up a sentence's token log-probabilities."""
    return sum(float(model.distribution(name, (START, *tokens[:i]))[token]) for i, token in enumerate(tokens))


def allowed(tokens: tuple[int, ...], limits: TokenConstraints) -> bool:
    """Says whether a sentence obeys the rules, written down independently of them."""
    for i, token in enumerate(tokens):
        if i < len(limits.prefix):
            if token != limits.prefix[i]:
                return False
            continue
        if token in limits.forbidden or (token == END and i < limits.min_length):
            return False
        if token == END:
            if i and tokens[i - 1] in limits.bad_endings:
                return False
            continue
        if i == limits.max_length - 1 and token in limits.bad_endings:
            return False
        if repeats(tokens[: i + 1], limits.no_repeat_ngram_size):
            return False
    return True


def repeats(words: tuple[int, ...], size: int) -> bool:
    """Says whether the last word repeats a phrase: of `size` words anywhere, of fewer beside itself or beyond AND."""
    if not size:
        return False
    if words[-size:] in {words[j : j + size] for j in range(len(words) - size)}:
        return True
    for length in range(1, size):
        phrase, before = words[-length:], words[:-length]
        if before[-length:] == phrase or (before[-1:] == (AND,) and before[:-1][-length:] == phrase):
            return True
    return False
