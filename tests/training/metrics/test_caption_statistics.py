"""Statistics against values counted by hand."""

import math

import pytest

from training.metrics.caption_statistics import describe, overuse

CAPTIONS = [
    "a dog runs",
    "A dog runs .",  # the same words
    "a man on a man on a man",  # "a man on" twice
    "a girl with a",
    "",
]


def test_statistics_are_those_counted_by_hand() -> None:
    found = describe(CAPTIONS, ["A dog runs!", "a girl"])
    assert found.captions == 5
    assert found.mean_length == pytest.approx((3 + 3 + 8 + 4 + 0) / 5)
    assert (found.shortest, found.longest) == (0, 8)
    assert found.length_deviation == pytest.approx(((9 + 9 + 64 + 16) / 5 - 3.6**2) ** 0.5)
    assert found.vocabulary == len({"a", "dog", "runs", "man", "on", "girl", "with"})
    assert found.distinct == 4 / 5
    assert found.unseen == 3 / 5
    assert found.fluent == 3 / 5  # "a dog runs" twice, and the empty one, which has no trigram
    assert found.repeating == 1 / 5
    assert found.repeating_two == 1 / 5
    assert found.badly_ending == 1 / 5


@pytest.mark.parametrize(
    ("caption", "two", "three"),
    [
        ("a dog and a cat", 0, 0),
        ("a man and a man", 1, 0),
        ("two two two", 1, 0),  # "two two" twice, and they overlap
        ("a man on a man on a man", 1, 1),
        ("a", 0, 0),
    ],
)
def test_what_is_said_twice_counts_by_its_words(caption: str, two: float, three: float) -> None:
    found = describe([caption], None)
    assert (found.repeating_two, found.repeating) == (two, three)
    assert dict(found.rows())["say two words twice"] == f"{two:.1%}"


def test_without_training_captions_the_share_unseen_is_not_known() -> None:
    found = describe(["a dog"], None)
    assert (found.unseen, found.fluent) == (None, None)
    assert ("never seen in training", "not known") in found.rows()
    assert ("all trigrams people's", "not known") in found.rows()


def test_overuse_is_the_share_of_captions_over_the_share_of_references() -> None:
    captions = ["a man runs", "a man and a man sit", "a dog runs", "a bird"]
    references = [
        ["a man runs", "someone runs"],
        ["two people", "a woman"],
        ["a dog", "the dog runs"],
        ["a bird", "it"],
    ]
    found = overuse(captions, references, least=0.3)
    assert found == {"man": 2 / 0.5, "runs": 2 / 1.5, "a": 4 / 2}
    assert list(found) == ["man", "a", "runs"]
    assert overuse(["a zebra"], [["a horse"]]) == {"zebra": math.inf, "a": 1.0}


@pytest.mark.parametrize(("caption", "bad"), [("he looks up", 0), ("a dog and a", 1), ("people wait in the", 1)])
def test_only_an_unfinished_sentence_ends_badly(caption: str, bad: float) -> None:
    assert describe([caption], None).badly_ending == bad
