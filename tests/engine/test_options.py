"""Options: a value that makes no sense is an OptionsError with the field and the value, before anything runs."""

import copy
import dataclasses
import math
import pickle
from typing import Any

import numpy as np
import pytest

from engine import Beam, EngineError, Greedy, OptionsError, RuntimeOptions, Sample
from engine.bundle.manifest import Defaults
from engine.bundle.vocabulary import SPECIAL_WORDS, Vocabulary
from engine.decoding.constraints import TokenConstraints
from engine.decoding.decode import as_text

WAYS: tuple[Any, ...] = (Greedy, Beam, Sample)  # Any: most of what they get here mypy would refuse
NO_COUNTS: tuple[Any, ...] = (-1, 1.0, "3", True, math.nan, [3])
SHARED: dict[str, tuple[Any, ...]] = {
    "max_length": (0, *NO_COUNTS),
    "min_length": (None, *NO_COUNTS),
    "prefix": (None, 3, b"a", ("a", "photo")),
    "suppress": (None, 5, "dog", ("dog", 3), [None], b"dog"),
    "no_repeat_ngram_size": NO_COUNTS,
    "bad_endings": (5, "of", ("of", 3), [None], b"of"),
    "style": (None, 1, "Plain", "", ["plain"]),
}
NUMBERS: tuple[Any, ...] = (-1.0, math.nan, math.inf, "1", True, 1j, [1.0])
OWN: dict[Any, dict[str, tuple[Any, ...]]] = {
    Beam: {"beam_size": (0, *NO_COUNTS), "num_hypotheses": (0, None, *NO_COUNTS), "length_penalty": NUMBERS},
    Sample: {
        "temperature": (0, 0.0, None, *NUMBERS),
        "top_k": (None, *NO_COUNTS),
        "top_p": (0, 0.0, 1.01, 2, None, *NUMBERS),
        "seed": NO_COUNTS,
        "num_samples": (0, None, *NO_COUNTS),
    },
}
BAD = [(way, name, value) for way in WAYS for name, values in SHARED.items() for value in values]
BAD += [(way, name, value) for way, fields in OWN.items() for name, values in fields.items() for value in values]


@pytest.mark.parametrize(("way", "name", "value"), BAD)
def test_a_bad_value_is_refused_with_its_field_and_value(way: Any, name: str, value: object) -> None:
    with pytest.raises(OptionsError) as caught:
        way(**{name: value})
    message = str(caught.value)
    shown = tuple(value) if name in ("suppress", "bad_endings") and isinstance(value, list | bytes) else value
    assert message.startswith(f"{way.__name__}({name}={shown!r}): {name} must be ")
    assert (caught.value.name, caught.value.value) == (name, pytest.approx(shown, nan_ok=True))
    assert message == f"{way.__name__}({name}={shown!r}): {caught.value.reason}"
    assert isinstance(caught.value, ValueError)
    assert isinstance(caught.value, EngineError)


def test_every_field_has_its_bad_values_here() -> None:
    for way in WAYS:
        named = {name for kind, name, _ in BAD if kind is way}
        assert named == {field.name for field in dataclasses.fields(way)}


@pytest.mark.parametrize("options", [Greedy(), Beam(beam_size=2), Sample(seed=1), RuntimeOptions()])
def test_options_are_values(options: Any) -> None:
    for field in dataclasses.fields(options):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(options, field.name, getattr(options, field.name))
    assert not hasattr(options, "__dict__")
    assert pickle.loads(pickle.dumps(options)) == copy.deepcopy(options) == dataclasses.replace(options) == options
    assert hash(copy.copy(options)) == hash(options)


def test_suppress_takes_any_sequence_of_words() -> None:
    for words in (["dog"], {"dog"}, (word for word in ["dog"])):
        assert WAYS[0](suppress=words) == Greedy(suppress=("dog",))


def test_more_hypotheses_than_beams_are_refused_with_both_numbers() -> None:
    Beam(beam_size=3, num_hypotheses=3)
    Beam(num_hypotheses=50)  # widens the beam
    with pytest.raises(OptionsError, match=r"num_hypotheses=4.*beam_size \(3\); leave beam_size out"):
        Beam(beam_size=3, num_hypotheses=4)


def test_numbers_of_numpy_are_numbers() -> None:
    greedy, beam, sample = WAYS
    three = np.int64(3)
    greedy(max_length=three, min_length=np.int32(2), no_repeat_ngram_size=np.uint8(2))
    beam(beam_size=three, num_hypotheses=three, length_penalty=np.float32(0.5))
    sample(temperature=np.float64(0.5), top_k=three, top_p=np.float32(0.5), seed=np.uint64(7), num_samples=three)
    with pytest.raises(OptionsError, match="top_k"):
        sample(top_k=np.float64(3))
    with pytest.raises(OptionsError, match="beam_size"):
        beam(beam_size=np.bool_(True))


# --- options against a model

WORDS = Vocabulary((*SPECIAL_WORDS, "a", "dog", "of", "photo"))
DEFAULTS = Defaults(max_length=5)


@pytest.mark.parametrize("way", WAYS)
def test_a_prefix_with_words_that_the_model_does_not_know_is_refused_with_those_words(way: Any) -> None:
    with pytest.raises(OptionsError, match=r"prefix='A zebra of Mars'.*\['zebra', 'mars'\]"):
        TokenConstraints.of(way(prefix="A zebra of Mars"), WORDS, DEFAULTS)


def test_a_prefix_that_fills_the_sentence_is_refused() -> None:
    assert TokenConstraints.of(Greedy(prefix="a photo of a"), WORDS, DEFAULTS).prefix == tuple(
        WORDS.encode("a photo of a")[1:-1]
    )
    with pytest.raises(OptionsError, match=r"prefix='a photo of a dog'.*max_length=5"):
        TokenConstraints.of(Greedy(prefix="a photo of a dog"), WORDS, DEFAULTS)
    with pytest.raises(OptionsError, match=r"prefix='a'.*max_length=1"):
        TokenConstraints.of(Greedy(prefix="a", max_length=1), WORDS, DEFAULTS)


def test_a_min_length_that_leaves_no_room_for_the_end_is_refused() -> None:
    assert TokenConstraints.of(Greedy(min_length=4), WORDS, DEFAULTS).min_length == 4
    with pytest.raises(OptionsError, match=r"min_length=5.*max_length=5"):
        TokenConstraints.of(Greedy(min_length=5), WORDS, DEFAULTS)
    assert TokenConstraints.of(Greedy(min_length=5, max_length=6), WORDS, DEFAULTS).max_length == 6


def test_what_is_left_out_is_the_bundles_default() -> None:
    assert TokenConstraints.of(Greedy(), WORDS, DEFAULTS).max_length == 5
    assert TokenConstraints.of(Greedy(max_length=9), WORDS, DEFAULTS).max_length == 9
    repeats = Defaults(no_repeat_ngram_size=3)
    assert TokenConstraints.of(Greedy(), WORDS, repeats).no_repeat_ngram_size == 3
    assert TokenConstraints.of(Greedy(no_repeat_ngram_size=2), WORDS, repeats).no_repeat_ngram_size == 2
    assert TokenConstraints.of(Greedy(no_repeat_ngram_size=0), WORDS, repeats).no_repeat_ngram_size == 0, (
        "0 switches it off"
    )


def test_bad_endings_are_the_bundles_unless_others_are_named_and_unknown_ones_do_nothing() -> None:
    endings = Defaults(bad_endings=("a", "of", "zebra"))
    assert TokenConstraints.of(Greedy(), WORDS, endings).bad_endings == (WORDS.ids["a"], WORDS.ids["of"])
    assert TokenConstraints.of(Greedy(bad_endings=("Of",)), WORDS, endings).bad_endings == (WORDS.ids["of"],)
    assert TokenConstraints.of(Greedy(bad_endings=()), WORDS, endings).bad_endings == ()


def test_an_empty_sentence_has_no_style() -> None:
    assert as_text([], "sentence") == ""
    assert as_text(["a", "dog"], "sentence") == "A dog."


def test_suppressed_words_are_forbidden_in_any_case_and_unknown_ones_do_nothing() -> None:
    rules = TokenConstraints.of(Greedy(suppress=("Dog", "zebra", "photo of")), WORDS, DEFAULTS)
    forbidden = {WORDS.words[i] for i in rules.forbidden}
    assert forbidden == {"dog", "photo", "of", "#PAD#", "#UNK#", "#START#"}


def test_the_first_word_of_a_vocabulary_can_be_suppressed_too() -> None:
    first = Vocabulary(("dog", "a", *SPECIAL_WORDS))
    assert 0 in TokenConstraints.of(Greedy(suppress=("dog",)), first, DEFAULTS).forbidden


# --- how to run


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("threads", value) for value in (-1, 1.5, "2", True)),
        *(("device_id", value) for value in (-1, None)),
        *(("gpu_memory_limit", value) for value in (0, -5, "1 GB", 1e9)),
        *(("cudnn_conv_algo_search", value) for value in ("FAST", None)),
        ("tf32", "no"),
        ("fp16", 1),
        *(("profile_images", value) for value in ((0, 1, 2), (4, 2, 8), (1, 2), 8, (1, 1.5, 2))),
        ("engine_cache", 5),
    ],
)
def test_a_bad_value_of_the_runtime_is_refused_with_its_field_and_value(name: str, value: Any) -> None:
    with pytest.raises(OptionsError) as caught:
        RuntimeOptions(**{name: value})
    assert str(caught.value).startswith(f"RuntimeOptions({name}={value!r}): {name} must be ")
