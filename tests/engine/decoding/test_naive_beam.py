"""Beam search against the same search written naively: one image, one sentence at a time, nothing stopped early."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.decoding.beam import BeamSearch
from tests.engine.decoding.table_model import END, START, TableModel, rules, searched

Sentence = tuple[tuple[int, ...], float]  # words, log_prob


def naive_beam(
    model: TableModel, name: int, max_length: int, beam_size: int, penalty: float
) -> list[tuple[tuple[int, ...], float]]:
    """Returns every sentence found with its score, best first.

    Of the 2 x beam_size best continuations the ends among the first beam_size count, and the first beam_size
    others live on, until beam_size sentences have ended.
    """
    live: list[Sentence] = [((), 0.0)]
    ended: list[Sentence] = []
    for _ in range(max_length):
        grown = [
            ((*words, token), total + float(log_prob))
            for words, total in live
            for token, log_prob in enumerate(model.distribution(name, (START, *words)))
            if token != START
        ]
        ranked = sorted(grown, key=lambda sentence: -sentence[1])[: 2 * beam_size]
        ended += [sentence for sentence in ranked[:beam_size] if sentence[0][-1] == END]
        live = [sentence for sentence in ranked if sentence[0][-1] != END][:beam_size]
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
    found = searched(TableModel(vocabulary_size, names, seed), search, limits, most)
    for image, name in enumerate(names):
        expected = naive_beam(TableModel(vocabulary_size, [name], seed), name, max_length, beam_size, penalty)[:most]
        there = np.nonzero(found.scores[image] > -np.inf)[0]
        sentences = [tuple(found.tokens[image, i, : found.lengths[image, i]].tolist()) for i in there]
        assert sentences == [words for words, _ in expected]
        assert found.scores[image, there] == pytest.approx([score for _, score in expected], abs=1e-5)
