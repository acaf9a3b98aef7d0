"""The laws of the search, on a fake decoder and against brute force."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.decoding.beam import BeamSearch
from engine.decoding.constraints import TokenConstraints
from engine.decoding.decode import run_search
from engine.decoding.greedy_and_sampling import FullSampling, GreedySearch, RowSearch, TruncatedSampling
from engine.decoding.hypotheses import TokenHypothesis
from engine.decoding.search import Draw
from tests.engine.decoding.table_model import (
    AND,
    END,
    START,
    TableModel,
    every_sentence,
    log_prob,
    repeats,
    rules,
)

seeds = st.integers(0, 10_000)
constraints = st.fixed_dictionaries(
    {},
    optional={
        "min_length": st.integers(0, 2),
        "prefix": st.sampled_from([(), (2,), (3, 2), (2, 3)]),
        "forbidden": st.sampled_from([(0,), (0, 2), (0, 3)]),
        "no_repeat_ngram_size": st.integers(0, 3),
        "bad_endings": st.sampled_from([(), (2,), (3,), (2, 3)]),
    },
)


Found = list[list[TokenHypothesis]]  # of each image, best first


def sentences(hypotheses: list[TokenHypothesis]) -> list[tuple[int, ...]]:
    return [tuple(one.tokens.tolist()) for one in hypotheses]


def beam(model: TableModel, limits: TokenConstraints, size: int, best: int = 1, penalty: float = 0.0) -> Found:
    return run_search(model, BeamSearch(limits, beam_size=size, num_hypotheses=best, length_penalty=penalty))


def greedy(model: TableModel, limits: TokenConstraints, penalty: float = 0.0) -> Found:
    return run_search(model, GreedySearch(limits, num_rows=1, length_penalty=penalty))


def sample(
    model: TableModel,
    limits: TokenConstraints,
    *,
    seed: int,
    rows: int = 1,
    k: int = 0,
    temperature: float = 1.0,
    top_p: float = 1.0,
) -> Found:
    search: RowSearch = FullSampling(limits, num_rows=rows, length_penalty=0.0)
    if k or top_p < 1:
        k = k or model.vocabulary_size
        search = TruncatedSampling(limits, k=k, top_p=top_p, num_rows=rows, length_penalty=0.0)
    return run_search(model, search, [Draw(seed, temperature)] * model.images)


@settings(max_examples=150, deadline=None)
@given(
    seed=seeds,
    size=st.integers(4, 5),
    length=st.integers(3, 4),
    penalty=st.sampled_from([0.0, 0.7, 1.0, 2.0]),
    limits=constraints,
)
def test_a_wide_enough_beam_finds_the_brute_force_optimum(
    seed: int, size: int, length: int, penalty: float, limits: dict[str, object]
) -> None:
    allowed = rules(size, length, **limits)
    model = TableModel(size, [7], seed)
    every = sorted(every_sentence(model, 7, allowed), key=lambda s: (not s[2], -s[1] / max(len(s[0]), 1) ** penalty))
    wide = size**length
    found = beam(model, allowed, wide, best=min(wide, 6), penalty=penalty)[0]
    expected = every[: min(wide, 6)]
    if not any(finished for _, _, finished in every):
        return  # nothing can end: the sentences stand where they are, which another law covers
    scores = [total / len(tokens) ** penalty for tokens, total, _ in expected]
    assert [one.score for one in found[: len(expected)]] == pytest.approx(scores, abs=1e-5)
    assert sentences(found)[0] == expected[0][0]


@settings(max_examples=150, deadline=None)
@given(
    seed=seeds,
    size=st.integers(4, 12),
    length=st.integers(4, 8),
    penalty=st.sampled_from([0.0, 1.0]),
    limits=constraints,
)
def test_beam_1_is_greedy(seed: int, size: int, length: int, penalty: float, limits: dict[str, object]) -> None:
    allowed = rules(size, length, **limits)
    names = [1, 2, 3]
    one = beam(TableModel(size, names, seed), allowed, 1, penalty=penalty)
    other = greedy(TableModel(size, names, seed), allowed, penalty)
    for [left], [right] in zip(one, other, strict=True):
        assert (sentences([left]), left.finished) == (sentences([right]), right.finished)
        assert left.score == pytest.approx(right.score, rel=1e-6)
        np.testing.assert_array_equal(left.token_log_probs, right.token_log_probs)


@settings(max_examples=60, deadline=None)
@given(seed=seeds, limits=constraints, penalty=st.sampled_from([0.0, 0.6, 1.0]))
def test_every_sentence_obeys_the_rules_and_scores_what_the_model_says(
    seed: int, limits: dict[str, object], penalty: float
) -> None:
    allowed = rules(6, 4, **limits)
    model = TableModel(6, [3, 4], seed)
    possible = [{tokens for tokens, _, _ in every_sentence(model, name, allowed)} for name in (3, 4)]
    for found in (
        beam(TableModel(6, [3, 4], seed), allowed, 3, best=3, penalty=penalty),
        greedy(TableModel(6, [3, 4], seed), allowed, penalty),
        sample(TableModel(6, [3, 4], seed), allowed, seed=seed, rows=4),
        sample(TableModel(6, [3, 4], seed), allowed, seed=seed, rows=4, k=4, top_p=0.9),
    ):
        for image, name in enumerate((3, 4)):
            for one, tokens in zip(found[image], sentences(found[image]), strict=True):
                ended = tokens in possible[image]
                stuck = not any(longer[: len(tokens)] == tokens for longer in possible[image])
                assert ended or stuck, tokens
                assert one.finished == (tokens[-1:] == (END,))
                assert one.token_log_probs.sum() == pytest.approx(log_prob(model, name, tokens), abs=1e-4)


WORDS = 7
histories = st.integers(1, 12).flatmap(
    lambda length: st.lists(
        st.lists(st.integers(2, WORDS - 1), min_size=length, max_size=length), min_size=1, max_size=4
    )
)


@settings(max_examples=200, deadline=None)
@given(seed=seeds, histories=histories, size=st.integers(0, 5), k=st.integers(1, 4), more=st.integers(1, 3))
def test_what_may_follow_any_words_is_what_the_rules_say_and_the_quick_way_is_the_masked_one(
    seed: int, histories: list[list[int]], size: int, k: int, more: int
) -> None:
    position, tokens = len(histories[0]), np.array(histories)
    limits = rules(WORDS, position + more, no_repeat_ngram_size=size, bad_endings=(2, 5))
    allowed = limits.allowed(tokens, np.full(len(tokens), position))
    mask = np.broadcast_to(allowed.mask(), (len(tokens), WORDS))
    for row, words in enumerate(histories):
        for token in range(WORDS):
            ends_badly = (words[-1] if token == END else token if more == 1 else 0) in (2, 5)
            repeated = token not in (START, END) and repeats((*words, token), size)
            assert (mask[row, token] == 0) == (token != START and not ends_badly and not repeated), (words, token)

    def model() -> TableModel:
        return TableModel(WORDS, list(range(len(tokens))), seed)

    start, rows = np.zeros(len(tokens), int), np.arange(len(tokens))
    ids, log_probs = model().step(start, rows, mask, k)
    quick_ids, quick = model().step(start, rows, allowed.bias, allowed.candidates(k))
    best_ids, best = allowed.best(quick_ids, quick)
    np.testing.assert_array_equal(best, log_probs[:, 0])
    np.testing.assert_array_equal(best_ids[best > -np.inf], ids[:, 0][best > -np.inf])
    quick = allowed.mask_banned(quick_ids, quick)
    order = np.argsort(-quick, axis=1, kind="stable")[:, :k]
    found = np.take_along_axis(quick, order, axis=1)
    np.testing.assert_array_equal(found, log_probs)
    possible = found > -np.inf
    np.testing.assert_array_equal(np.take_along_axis(quick_ids, order, axis=1)[possible], ids[possible])


@given(histories=histories)
def test_phrases_that_are_longer_than_a_sentence_are_not_looked_for(histories: list[list[int]]) -> None:
    tokens = np.array(histories)
    long, longer = (rules(WORDS, 20, no_repeat_ngram_size=size).allowed(tokens).mask() for size in (20, 10**18))
    np.testing.assert_array_equal(long, longer)


@settings(max_examples=100, deadline=None)
@given(histories=histories, lengths=st.data(), size=st.integers(0, 4), least=st.integers(0, 3), more=st.integers(1, 3))
def test_what_may_follow_a_row_does_not_depend_on_rows_that_began_earlier_or_later(
    histories: list[list[int]], lengths: st.DataObject, size: int, least: int, more: int
) -> None:
    longest = len(histories[0])
    words = [row[: lengths.draw(st.integers(0, longest))] for row in histories[1:]] + [histories[0]]
    limits = rules(
        WORDS, longest + more, no_repeat_ngram_size=size, bad_endings=(2, 5), min_length=least, prefix=(4, 4)[:least]
    )
    written = np.array([[START] * (longest - len(row)) + row for row in words])
    together = limits.allowed(written, np.array([len(row) for row in words])).mask()
    together = np.broadcast_to(together, (len(words), WORDS))
    for mask, row in zip(together, words, strict=True):
        alone = limits.allowed(np.array([row], np.int64).reshape(1, -1))  # all as long as the longest
        np.testing.assert_array_equal(mask, alone.mask()[0])


def test_each_image_has_all_its_rows_at_once_and_leaves_the_batch_when_it_is_finished() -> None:
    model = TableModel(6, list(range(16)), seed=2, sharpness=3.0)
    beam(model, rules(6, 12), 3)
    assert model.calls[0] == 48
    assert model.calls[-1] < 48
    assert all(later <= earlier for earlier, later in zip(model.calls, model.calls[1:], strict=False))


def test_the_loop_ends_with_the_last_token() -> None:
    model = TableModel(6, [1, 2, 3], seed=4, sharpness=3.0)
    found = greedy(model, rules(6, 30))
    assert len(model.calls) == max(len(one.tokens) for [one] in found) < 30


@pytest.mark.parametrize(
    ("k", "temperature", "top_p"),
    [(1, 1.0, 1.0), (0, 1.0, 1e-6), (0, 1e-4, 1.0)],
    ids=["top_k", "top_p", "temperature"],
)
def test_a_draw_of_one_word_is_greedy(k: int, temperature: float, top_p: float) -> None:
    drawn = sample(TableModel(20, [1, 2, 3]), rules(20, 8), seed=5, k=k, temperature=temperature, top_p=top_p)
    best = greedy(TableModel(20, [1, 2, 3]), rules(20, 8))
    assert list(map(sentences, drawn)) == list(map(sentences, best))


@pytest.mark.parametrize(
    ("constraints", "length"),
    [({"forbidden": (0, 1, 2), "no_repeat_ngram_size": 1}, 1), ({"bad_endings": (2, AND), "min_length": 1}, 4)],
    ids=["one word, once", "every word ends badly"],
)
def test_a_sentence_with_no_way_on_stands_unfinished(constraints: dict[str, object], length: int) -> None:
    limits = rules(4, 5, **constraints)
    for found in (
        beam(TableModel(4, [1, 2]), limits, 2, best=2),
        greedy(TableModel(4, [1, 2]), limits),
        sample(TableModel(4, [1, 2]), limits, seed=1),
    ):
        assert [(len(each[0].tokens), each[0].finished) for each in found] == [(length, False)] * 2
