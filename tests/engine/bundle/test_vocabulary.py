import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.bundle.vocabulary import END, PAD, SPECIAL_WORDS, START, UNK, Vocabulary, pad_matrix, split

words = st.from_regex(r"\w{1,8}", fullmatch=True).map(str.lower).filter(lambda word: split(word) == [word])
sentences = st.lists(words, max_size=12).map(" ".join)
id_rows = st.lists(st.lists(st.integers(0, 9), max_size=7), max_size=6)


@settings(deadline=None)  # a busy machine is no fault
@given(st.text())
def test_splitting_the_joined_words_gives_the_same_words(text: str) -> None:
    assert split(" ".join(split(text))) == split(text)


@settings(deadline=None)
@given(sentences)
def test_a_sentence_of_known_words_survives_encode_and_decode(sentence: str) -> None:
    vocabulary = Vocabulary.build([sentence], min_count=1)
    assert vocabulary.decode(vocabulary.encode(sentence)) == sentence


@settings(deadline=None)
@given(sentences, sentences)
def test_every_unknown_word_and_no_other_becomes_unk(known: str, text: str) -> None:
    vocabulary = Vocabulary.build([known], min_count=1)
    expected = [word if word in split(known) else UNK for word in split(text)]
    assert vocabulary.decode(vocabulary.encode(text)) == " ".join(expected)


@settings(deadline=None)
@given(sentences, st.integers(0, 14))
def test_a_sentence_is_ended_exactly_when_it_is_not_cut(sentence: str, max_words: int) -> None:
    vocabulary = Vocabulary.build([sentence], min_count=1)
    ids = vocabulary.encode(sentence, max_words)
    kept = split(sentence)[:max_words]
    assert ids[0] == vocabulary.start_id
    assert (ids[-1] == vocabulary.end_id) == (len(kept) == len(split(sentence)))
    assert vocabulary.decode(ids) == " ".join(kept)


@settings(deadline=None)
@given(st.lists(sentences, max_size=8), st.integers(1, 4))
def test_a_vocabulary_holds_the_frequent_words_in_sorted_order(captions: list[str], min_count: int) -> None:
    vocabulary = Vocabulary.build(captions, min_count)
    everything = [word for caption in captions for word in split(caption)]
    frequent = {word for word in everything if everything.count(word) >= min_count}
    assert list(vocabulary.words) == sorted(frequent | set(SPECIAL_WORDS))
    assert Vocabulary.build(reversed(captions), min_count) == vocabulary


@settings(deadline=None)
@given(id_rows)
def test_a_padded_matrix_holds_each_sequence_and_then_only_padding(rows: list[list[int]]) -> None:
    matrix = pad_matrix(rows, pad_id=77)
    assert matrix.dtype == np.int64
    assert matrix.shape == (len(rows), max(map(len, rows), default=0))
    for row, padded in zip(rows, matrix.tolist(), strict=True):
        assert padded == row + [77] * (matrix.shape[1] - len(row))


def test_decoding_stops_at_end_and_leaves_out_start_and_padding() -> None:
    vocabulary = Vocabulary.build(["a cat"], min_count=1)
    ids = [vocabulary.ids[word] for word in (START, "a", PAD, UNK, END, "cat")]
    assert vocabulary.decode(ids) == f"a {UNK}"


def test_a_saved_vocabulary_loads_as_the_same_one(tmp_path: Path) -> None:
    vocabulary = Vocabulary.build(["Ein Hündchen läuft", "子犬 が 走る"], min_count=1)
    vocabulary.save(tmp_path / "vocabulary.json")
    assert Vocabulary.load(tmp_path / "vocabulary.json") == vocabulary


@pytest.mark.parametrize("content", [{"a": 1}, ["a", 2], ["a", "b"], [*SPECIAL_WORDS, "a", "a"], "a"])
def test_a_file_that_is_no_vocabulary_is_refused(tmp_path: Path, content: object) -> None:
    path = tmp_path / "vocabulary.json"
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match="vocabulary"):
        Vocabulary.load(path)
