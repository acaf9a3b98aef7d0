import numpy as np

from engine.search.ranking import overlaps, rarities
from engine.search.words import Term


def test_a_word_weighs_more_the_rarer_it_is_and_never_less_than_nothing() -> None:
    frequencies = {
        "a": 0,
        "b": 1,
        "c": 50,
        "d": 99,
        "e": 100,
        "f": 150,
    }  # the last was counted later than the photographs
    weights = rarities([Term(word) for word in frequencies], frequencies, 100)
    assert weights == sorted(weights, reverse=True)
    assert min(weights) > 0


def test_an_overlap_is_a_share_however_few_photographs_there_are() -> None:
    terms = [Term("dog"), Term("beach", ("sand",))]
    found = overlaps(terms, rarities(terms, {"dog": 90, "beach": 100, "sand": 3}, 1), ["dog beach", "sand", "", "man"])
    assert found[0] == 1
    assert 0 < found[1] < 1
    np.testing.assert_array_equal(found[2:], 0)
