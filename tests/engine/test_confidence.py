"""The laws of confidence: what it is computed of, and that every way to a sentence computes the same."""

import math
from collections.abc import Mapping
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine import Beam, Caption, Greedy, Sample
from engine.bundle.manifest import Defaults
from engine.bundle.vocabulary import END, PAD, START, UNK, Vocabulary
from engine.confidence import FEATURES, UNCALIBRATED, check_confidence, confidence
from engine.decoding.constraints import TokenConstraints
from engine.decoding.decode import decode
from engine.options import Decoding
from tests.engine.decoding.table_model import TableModel

WORDS = Vocabulary((START, END, PAD, UNK, "a", "dog", "runs", "fast"))
DEFAULTS = Defaults(max_length=6, beam_size=3, length_penalty=0.7)
MODEL = {"threshold": 0.65, "intercept": 3.2, "per_root_length": 1.0, "first_3": 0.4}
RISING = [name for name in FEATURES if name != "length"]  # with every log-probability
WAYS: tuple[Decoding, ...] = (
    Greedy(),
    Beam(num_hypotheses=3),
    Beam(beam_size=5, length_penalty=0.0),
    Sample(seed=4, num_samples=4),
    Sample(seed=4, top_k=3, temperature=0.5),
)
log_probs = st.lists(st.floats(-50, 0), min_size=1, max_size=20)
weights = st.dictionaries(st.sampled_from(RISING), st.floats(0, 10))


def captions(decoding: Decoding, names: list[int], model: Mapping[str, float] = MODEL) -> list[Caption]:
    rules = TokenConstraints.of(decoding, WORDS, DEFAULTS)
    return decode(TableModel(len(WORDS), names), decoding, rules, WORDS, DEFAULTS, model)


# --- the formula


def test_the_features_are_these() -> None:
    whole, short = (-1.0, -3.0, -0.5, -2.0), (-2.0,)
    assert {name: feature(whole) for name, feature in FEATURES.items()} == {
        "mean": -1.625,
        "per_root_length": -3.25,
        "first_3": -4.5,
        "least": -3.0,
        "lowest_3": -2.0,
        "length": 4,
    }
    assert {name: feature(short) for name, feature in FEATURES.items()} == dict.fromkeys(RISING, -2.0) | {"length": 1}


def test_it_is_the_logistic_function_of_the_named_features() -> None:
    odds = 3.2 + 1.0 * (-6.5 / math.sqrt(4)) + 0.4 * -4.5
    assert confidence((-1.0, -3.0, -0.5, -2.0), MODEL) == pytest.approx(1 / (1 + math.exp(-odds)), rel=1e-12)
    assert confidence((-1.0,), {"threshold": 0.0, "intercept": 0.0}) == 0.5


@given(log_probs, weights, st.floats(-5, 5))
def test_it_lies_from_0_to_1(given_log_probs: list[float], model: dict[str, float], intercept: float) -> None:
    assert 0 <= confidence(given_log_probs, model | {"intercept": intercept}) <= 1


@given(log_probs, weights, st.data())
def test_a_likelier_word_never_lowers_it_where_no_weight_is_negative(
    given_log_probs: list[float], model: dict[str, float], data: st.DataObject
) -> None:
    place = data.draw(st.integers(0, len(given_log_probs) - 1))
    raised = [*given_log_probs]
    raised[place] = data.draw(st.floats(raised[place], 0))
    model = model | {"intercept": 1.0}
    assert confidence(raised, model) >= confidence(given_log_probs, model) - 1e-12


def test_nothing_is_too_unlikely_for_it() -> None:
    assert confidence((-1e300, -1e300), MODEL) == 0.0
    assert confidence((0.0,) * 20, MODEL | {"intercept": 1e6}) == 1.0


def test_it_is_nan_without_coefficients_or_without_log_probabilities() -> None:
    assert math.isnan(confidence((-1.0,), UNCALIBRATED))
    assert math.isnan(confidence((), MODEL))
    assert math.isnan(confidence((-1.0,), MODEL, given=1))


@given(log_probs, log_probs)
def test_given_words_do_not_count(words: list[float], chosen: list[float]) -> None:
    assert confidence([*words, *chosen], MODEL, given=len(words)) == confidence(chosen, MODEL)


def test_every_fault_of_the_coefficients_is_named() -> None:
    assert check_confidence({}) == check_confidence(MODEL) == []
    faults = check_confidence({"intercept": math.inf, "mean": "1", "words": 1.0, "least": True})
    assert [fault.split(" and ")[0].split(":")[0].split(";")[0] for fault in faults] == [
        "confidence.threshold is missing",
        "confidence.words is unknown",
        "confidence.intercept is inf",
        "confidence.mean is '1'",
        "confidence.least is True",
    ]


# --- on the way through a search


@pytest.mark.parametrize("decoding", WAYS, ids=str)
def test_every_hypothesis_of_every_decoding_has_the_confidence_of_its_log_probabilities(decoding: Decoding) -> None:
    found = captions(decoding, [0, 1, 2, 3])
    for caption in found:
        assert caption.confidence == caption.alternatives[0].confidence
        for one in caption.alternatives:
            assert one.confidence == confidence(one.token_log_probs, MODEL)


@pytest.mark.parametrize("decoding", WAYS, ids=str)
def test_a_prefix_is_not_held_against_what_follows_it(decoding: Decoding) -> None:
    for caption in captions(replace(decoding, prefix="fast dog"), [0, 1, 2, 3]):
        for one in caption.alternatives:
            assert one.tokens[:2] == ("fast", "dog")
            assert len(one.token_log_probs) > 2
            assert one.confidence == confidence(one.token_log_probs[2:], MODEL)


def test_a_model_that_is_not_calibrated_gives_none_and_the_rest_stays() -> None:
    bare, rated = captions(Beam(), [0, 1], UNCALIBRATED), captions(Beam(), [0, 1])
    assert all(math.isnan(caption.confidence) for caption in bare)
    assert bare == rated
