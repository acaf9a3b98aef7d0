import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine import OptionsError
from engine.search.related import ALIKE, IRREGULAR, KINDS
from engine.search.words import MAX_WORDS, Term, fold, folded, overlap, terms_of

FORMS = (
    "dog dogs",
    "puppy puppies",
    "run runs ran running",
    "ride rides rode riding",
    "dance dances danced dancing",
    "smile smiles smiling",
    "beach beaches",
    "box boxes",
    "horse horses",
    "man men",
    "child children",
    "person people",
    "bike bicycle bicycles biking",
    "plane airplanes aeroplane",
    "hug hugs hugging hugged",
    "fall falls falling fell",
    "glass glasses",
    "tomato tomatoes",
    "knife knives",
    "sky skies",
    "two 2",
)
DIFFERENT = "cap cape", "can cane", "cut cute", "site sit", "even evening", "bed be", "wing w", "red r", "king k"


@pytest.mark.parametrize("forms", FORMS)
def test_forms_of_a_word_are_one(forms: str) -> None:
    assert len({fold(word) for word in forms.split()}) == 1


@pytest.mark.parametrize("words", DIFFERENT)
def test_different_words_stay_apart(words: str) -> None:
    assert len({fold(word) for word in words.split()}) == 2


@given(st.text())
def test_a_folded_text_is_folded_alike_wherever_its_words_stand(text: str) -> None:
    words = folded([text]).split()
    assert sorted(folded([*reversed(text.split())]).split()) == sorted(words)
    assert len(set(words)) == len(words)


def test_a_puppy_is_a_dog() -> None:
    (term,) = terms_of("Puppies")
    assert term.word == fold("puppy")
    assert fold("dog") in term.others


def test_an_animal_is_a_dog_and_a_dog_is_no_animal() -> None:
    (animal,), (dog,) = terms_of("animal"), terms_of("dog")
    assert fold("dog") in animal.others
    assert fold("animal") not in dog.others


def test_words_that_say_nothing_are_left_out_unless_there_are_no_others() -> None:
    assert [term.word for term in terms_of("a dog in the park")] == [fold("dog"), fold("park")]
    assert [term.word for term in terms_of("with the")] == ["with", "the"]


@pytest.mark.parametrize("query", ["", "  ", "🐶", '"*" !', "\x00"])
def test_a_query_without_words_says_so(query: str) -> None:
    with pytest.raises(OptionsError, match="the query has no words: describe what the photograph shows"):
        terms_of(query)


def test_a_query_of_too_many_words_or_characters_says_how_many() -> None:
    with pytest.raises(OptionsError, match=f"may have {MAX_WORDS} words, and this one has 10,000"):
        terms_of("dog " * 10_000)
    with pytest.raises(OptionsError, match="may have 100,000 characters, and this one has 100,001"):
        terms_of("d" * 100_001)


def test_overlap_is_the_weight_of_the_words_that_are_there() -> None:
    terms = (Term("puppy", ("dog",)), Term("beach"), Term("run"))
    assert overlap(terms, [1, 2, 1], "puppy beach run") == 1
    assert overlap(terms, [1, 2, 1], "dog beach") == pytest.approx((0.8 + 2) / 4)
    assert overlap(terms, [1, 2, 1], "cat") == 0
    assert overlap(terms, [1, 2, 1], "dogs beaches") == 0


def test_every_word_of_the_tables_is_one_word_that_captions_could_have() -> None:
    words = [word for line in [*ALIKE, *KINDS.values()] for word in line.split()] + [*KINDS, *IRREGULAR]
    assert all(word.isalnum() and word == word.casefold() for word in words)
