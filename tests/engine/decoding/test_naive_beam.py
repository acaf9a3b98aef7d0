"""Beam search against the same search written naively: one image, one sentence at a time, nothing stopped early."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.decoding.beam import BeamSearch
from engine.decoding.decode import run_search
from tests.engine.decoding.table_model import END, START, TableModel, rules

Sentence = tuple[tuple[int, ...], float]  # words, log_prob


def naive_beam(
    distribution: Callable[[tuple[int, ...]], np.ndarray], end: int, max_length: int, beam_size: int, penalty: float
) -> list[tuple[tuple[int, ...], float]]:
    """Returns every sentence found with its score, best first; distribution gives the log-probabilities of next words.

    Of the 2 x beam_size best continuations the ends among the first beam_size count, and the first beam_size
    others live on, until beam_size sentences have ended.
    """
    live: list[Sentence] = [((), 0.0)]
    ended: list[Sentence] = []
    for _ in range(max_length):
        grown = [
            ((*words, token), total + float(log_prob))
            for words, total in live
            for token, log_prob in enumerate(distribution(words))
            if log_prob > -np.inf
        ]
        ranked = sorted(grown, key=lambda sentence: -sentence[1])[: 2 * beam_size]
        ended += [sentence for sentence in ranked[:beam_size] if sentence[0][-1] == end]
        live = [sentence for sentence in ranked if sentence[0][-1] != end][:beam_size]
        if len(ended) >= beam_size:
            live = []
            break
    scored = [
        [(words, total / len(words) ** penalty) for words, total in sentences] for sentences in (ended, live)
    ]  # the finished stand before the unfinished
    return [one for part in scored for one in sorted(part, key=lambda sentence: -sentence[1])]


@settings(max_examples=120, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    vocabulary_size=st.integers(4, 9),
    max_length=st.integers(2, 7),
    beam_size=st.integers(1, 4),
    hypotheses=st.integers(1, 4),
    penalty=st.sampled_from([0.0, 0.7, 1.0, 2.0]),
)
def test_beam_search_is_the_naive_one_and_stopping_early_loses_nothing(
    seed: int, vocabulary_size: int, max_length: int, beam_size: int, hypotheses: int, penalty: float
) -> None:
    names, most = [1, 2, 3], min(hypotheses, beam_size)
    limits = rules(vocabulary_size, max_length)
    search = BeamSearch(limits, beam_size=beam_size, num_hypotheses=most, length_penalty=penalty)
    found = run_search(TableModel(vocabulary_size, names, seed), search)
    for image, name in enumerate(names):

        def distribution(words: tuple[int, ...], name: int = name) -> np.ndarray:
            log_probs = TableModel(vocabulary_size, [name], seed).distribution(name, (START, *words)).copy()
            log_probs[START] = -np.inf
            return log_probs

        expected = naive_beam(distribution, END, max_length, beam_size, penalty)[:most]
        assert [tuple(one.tokens.tolist()) for one in found[image]] == [words for words, _ in expected]
        assert [one.score for one in found[image]] == pytest.approx([score for _, score in expected], abs=1e-5)
