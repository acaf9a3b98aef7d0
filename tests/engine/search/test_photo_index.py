import random
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine import Captioner, ImageError, OptionsError, PhotoIndex, Results
from engine.search import ranking
from engine.search.words import overlap, terms_of
from tests.engine.search.conftest import Open
from tests.vectors import RandomVectors

SAMPLES = Path(__file__).parents[3] / "samples"


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> PhotoIndex:
    """An index of the samples by the bundle that ships."""
    index = PhotoIndex(tmp_path_factory.mktemp("samples") / "photos.db", Captioner(provider="cpu", precision="fp32"))
    index.add([SAMPLES])
    return index


def order(results: Results) -> list[str]:
    return [Path(found.photo.path).name for found in results]


def test_what_was_indexed_is_found_by_its_own_caption_among_the_first_three(samples: PhotoIndex) -> None:
    files = [file for file in SAMPLES.iterdir() if samples.caption(file)]
    assert len(files) == samples.counts().photos > 5
    for file in files:
        photo = samples.caption(file)
        assert photo is not None
        assert photo.id in [found.photo.id for found in samples.search(photo.text, 3)]


def test_a_kitten_finds_the_cat(samples: PhotoIndex) -> None:
    assert order(samples.search("a kitten", 1)) == ["cat.jpg"]


def test_the_order_of_indexing_changes_nothing(
    opened: Open, photos: Path, tmp_path: Path, tiny_captioner: Captioner
) -> None:
    files = sorted(photos.rglob("*.jpg"))
    random.Random(1).shuffle(files)
    one, other = opened(path=tmp_path / "one.db"), opened(path=tmp_path / "other.db")
    one.add([photos])
    for file in files:
        other.add([file])
    for query in ("a red circle", "blue square on white", "triangle"):
        first, second = one.search(query, 100), other.search(query, 100)
        scores = {found.photo.path: found.score for found in first}
        assert scores == pytest.approx({found.photo.path: found.score for found in second}, abs=1e-4)


@pytest.mark.parametrize("query", ["a red circle the square", "two blue triangle"])
def test_the_ranking_is_that_of_the_formula_computed_for_every_photograph(
    opened: Open, photos: Path, vector_captioner: Captioner, vectors: RandomVectors, query: str
) -> None:
    index = opened(vector_captioner)
    index.add([photos])
    files = sorted(photos.rglob("*.jpg"))
    texts = [ranking_text(index, file) for file in files]
    terms = terms_of(query)
    having = [max(sum(word in text.split() for text in texts) for word in term.all) for term in terms]
    rarity = [float(np.log1p((6 - count + 0.5) / (count + 0.5))) for count in having]
    known = [word for word in query.split() if word in vector_captioner.bundle.vocabulary.ids]
    likely = vector_captioner.score(files, [" ".join(known)] * len(files)) / (len(known) + 1)
    cosines = vectors.of_features(vector_captioner.encode(files)) @ vectors.of_texts([query])[0]
    expected = {
        str(file): cosine + ranking.OVERLAP * overlap(terms, rarity, text) + ranking.LIKELIHOOD * each
        for file, cosine, text, each in zip(files, cosines, texts, likely, strict=True)
    }
    found = {each.photo.path: each.score for each in index.search(query, 100)}
    assert found == pytest.approx(expected, abs=0.01)


def test_the_most_similar_are_those_with_the_highest_cosine(
    opened: Open, photos: Path, images: list[Path], vector_captioner: Captioner, vectors: RandomVectors
) -> None:
    index = opened(vector_captioner)
    index.add([photos])
    files = sorted(photos.rglob("*.jpg"))
    theirs = vectors.of_features(vector_captioner.encode(files))
    for image in (images[9], files[2]):
        (vector,) = vectors.of_features(vector_captioner.encode([image]))
        expected = dict(zip(map(str, files), (theirs @ vector).tolist(), strict=True))
        expected.pop(str(image), None)
        found = {each.photo.path: each.score for each in index.similar(image, 100)}
        assert found == pytest.approx(expected, abs=0.02)
    photo = index.caption(files[2])
    assert photo is not None
    assert [each.photo.path for each in index.similar(photo.id, 3)] == list(found)[:3]
    with pytest.raises(OptionsError, match="there is no photograph 99 in the index"):
        index.similar(99)
    with pytest.raises(ImageError, match=r"^nowhere\.jpg: there is no such file$"):
        index.similar("nowhere.jpg")


def ranking_text(index: PhotoIndex, file: Path) -> str:
    """Returns the folded words of the captions of a file."""
    from engine.search.words import folded

    photo = index.caption(file)
    assert photo is not None
    return folded(each.text for each in photo.alternatives)


HOSTILE = (
    '"',
    "'; DROP TABLE photos; --",
    "dog AND NOT cat OR",
    "NEAR(dog cat)",
    "folded: dog",
    "dog*",
    "^dog",
    "(((",
    "dog\x00cat",
    "\ud800 dog",
    "ﬁ ﬀ ß İ",
    "犬 собака",
    "🐶 dog",
    "_",
    "%",
    "dog " * 60,
)


@pytest.mark.parametrize("query", HOSTILE)
def test_a_hostile_query_is_an_answer_or_one_sentence(samples: PhotoIndex, query: str) -> None:
    if any(letter.isalnum() or letter == "_" for letter in query):
        assert len(samples.search(query)) <= samples.counts().photos
    else:
        with pytest.raises(OptionsError, match="the query has no words"):
            samples.search(query)
    assert samples.counts().photos > 5


@given(st.text(max_size=200))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_text_is_an_answer_or_one_sentence(samples: PhotoIndex, query: str) -> None:
    try:
        scores = [found.score for found in samples.search(query, 5)]
    except OptionsError as error:
        scores, said = [], str(error)
        assert said.startswith(("the query has no words", "a query may have"))
    assert scores == sorted(scores, reverse=True)


@pytest.mark.parametrize("limit", [0, -1, 10_001, 1.5, True, "2"])
def test_a_limit_is_a_whole_number_within_bounds(samples: PhotoIndex, limit: int) -> None:
    with pytest.raises(OptionsError, match="limit must be a whole number from 1 to 10,000"):
        samples.search("a dog", limit)
    with pytest.raises(OptionsError, match="limit must be a whole number from 1 to 10,000"):
        samples.similar(1, limit)


def test_the_limit_cuts_the_order_and_does_not_change_it(opened: Open, photos: Path) -> None:
    index = opened()
    index.add([photos])
    whole = order(index.search("a red circle", 100))
    assert len(whole) > 2
    for limit in range(1, len(whole) + 2):
        assert order(index.search("a red circle", limit)) == whole[:limit]


def test_threads_find_what_one_finds(samples: PhotoIndex) -> None:
    queries = ["a cat", "a man with a camera", "a cup of coffee", "a rocket"] * 3
    alone = [order(samples.search(query)) for query in queries]
    found: dict[int, list[str]] = {}
    threads = [
        threading.Thread(target=lambda i=i, query=query: found.update({i: order(samples.search(query))}))
        for i, query in enumerate(queries)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [found[i] for i in range(len(queries))] == alone


def test_one_path_instead_of_several_says_so(samples: PhotoIndex) -> None:
    with pytest.raises(OptionsError, match="takes several paths, but got one"):
        samples.add(str(SAMPLES))


def test_a_bundle_without_vectors_says_that_it_cannot_compare(opened: Open, photos: Path) -> None:
    index = opened()
    index.add([photos])
    with pytest.raises(OptionsError, match="has no vectors, so it cannot compare photographs"):
        index.similar(photos / "0.jpg")


def test_an_index_that_is_closed_opens_again(opened: Open, photos: Path) -> None:
    with opened() as index:
        index.add([photos])
    assert index.counts().photos == 6


def test_a_copy_of_the_index_can_be_searched_elsewhere(opened: Open, photos: Path, tmp_path: Path) -> None:
    index = opened()
    index.add([photos])
    expected = order(index.search("a red circle"))
    index.close()
    shutil.copyfile(tmp_path / "photos.db", tmp_path / "copy.db")
    assert order(opened(path=tmp_path / "copy.db").search("a red circle")) == expected


def test_a_query_of_unknown_words_finds_nothing_rather_than_anything(
    opened: Open, photos: Path, vector_captioner: Captioner
) -> None:
    index = opened(vector_captioner)
    index.add([photos])
    assert len(index.search("circle", 100)) == 6
    assert list(index.search("xylophone zeppelin", 100)) == []


def test_photographs_beyond_those_that_are_read_again_come_after_them_in_their_order(
    opened: Open, photos: Path, vector_captioner: Captioner, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = opened(vector_captioner)
    index.add([photos])
    monkeypatch.setattr(ranking, "LIKELIHOOD", 0.0)
    before = index.search("a red circle", 100)
    monkeypatch.undo()
    monkeypatch.setattr(ranking, "RERANKED", 3)
    after = index.search("a red circle", 100)
    assert {each.photo.id for each in after[:3]} == {each.photo.id for each in before[:3]}
    assert [each.photo.id for each in after[3:]] == [each.photo.id for each in before[3:]]
    scores = [each.score for each in after]
    assert scores == sorted(scores, reverse=True)
    assert len(set(scores)) == 6


def test_a_file_that_changed_since_is_compared_as_it_is_now(
    opened: Open, photos: Path, images: list[Path], vector_captioner: Captioner
) -> None:
    index = opened(vector_captioner)
    index.add([photos])
    shutil.copyfile(images[9], photos / "0.jpg")
    changed = {each.photo.path: each.score for each in index.similar(photos / "0.jpg", 100)}
    expected = {each.photo.path: each.score for each in index.similar(images[9], 100)}
    assert changed == pytest.approx(expected)
