"""The laws of Store, for a file and for a server, held against plain dictionaries."""

import os
import random
import threading
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from engine.errors import StoreError
from engine.search.photo import Described, File, Sentence
from engine.search.store import BundleKey, Store
from engine.search.table import as_direction
from tests.engine.search.model import ModelIndex

Open = Callable[..., Store]
SMALL = BundleKey("small", "0" * 64, (3,), 4)
OTHER = BundleKey("other", "1" * 64, (2, 2), 6)
PLAIN = BundleKey("plain", "2" * 64, (3,), 0)
WORDS = (
    *("man", "woman", "dog", "puppy", "dogs", "running", "beach", "red", "ball", "glasses", "the"),
    *("it's", "naïve", "ß", "日本", "3d", "snow_board"),
)
NAMES = [
    b"a.jpg",
    b"b'\"; DROP TABLE photos; --.jpg",
    b"\xff\xfe.jpg",
    "ü 日本\n.png".encode(),
    b"%_\\x.jpg",
    b"z" * 200,
]
FOLDERS = [b"/p", b"/p/q", b"/pq", b"/p/q" + b"/long" * 700]
PATHS = [folder + b"/" + name for folder in FOLDERS for name in NAMES]


def some_photograph(rng: random.Random, key: BundleKey, digest: bytes) -> Described:
    texts = [" ".join(rng.choices(WORDS, k=rng.randint(1, 9))) for _ in range(rng.randint(1, 3))]
    numbers = np.random.default_rng(rng.randrange(2**32))
    features = numbers.standard_normal(key.feature_shape).astype(np.float16)
    vector = as_direction(numbers.standard_normal((1, key.vector_size)))[0] if key.vector_size else None
    sentences = tuple(Sentence(text, -rng.random() * 9, rng.random()) for text in dict.fromkeys(texts))
    return Described(digest, sentences, features, vector)


def digest_of(number: int) -> bytes:
    return bytes([number]) * 32


def some_writes(rng: random.Random, model: ModelIndex, key: BundleKey) -> tuple[list[Described], list[File]]:
    described = [some_photograph(rng, key, digest_of(rng.randrange(30))) for _ in range(rng.randint(0, 4))]
    known = [*model.photos, *(each.digest for each in described)]
    files = []
    for path in rng.choices(PATHS, k=rng.randint(0, 5)):
        size, modified = rng.randrange(-1, 2**40), rng.randrange(2**62)
        if known and rng.random() < 0.8:
            files.append(File(path, size, modified, rng.choice(known)))
        else:
            files.append(File(path, size, modified, rng.choice([b"", b"x" * 32]), "it is no image ü"))
    return described, files


class Watched:
    """A store for one bundle beside the model, and the ids that it gave."""

    def __init__(self, store: Store, key: BundleKey) -> None:
        self.store, self.key = store, key
        self.ids: dict[bytes, int] = {}
        self.revision = 0
        self.mirror: dict[int, tuple[bool, bytes]] = {}

    def check(self, model: ModelIndex, rng: random.Random) -> None:
        store, key = self.store, self.key
        assert store.known([*PATHS, b"/unknown"]) == model.known(key)
        assert store.described([digest_of(i) for i in range(32)]) == model.of(key).keys()
        assert store.counts() == model.counts(key)
        for folder in (*FOLDERS, b"/", b"/p/"):
            inside = folder.rstrip(b"/") + b"/"
            there = [path for path, (_, missing) in model.files.items() if not missing and path.startswith(inside)]
            assert sorted(store.files_in(folder)) == sorted(there)
        self._check_ids(model)
        self._check_photographs(model)
        self._check_words(model, rng)
        self._check_changes(model)
        self._check_vectors(model, rng)

    def _check_ids(self, model: ModelIndex) -> None:
        for path in PATHS:
            id_ = self.store.id_of(path)
            file, missing = model.files.get(path, (None, True))
            if file is None or missing or file.error:
                assert id_ is None
            else:
                assert id_ == self.ids.setdefault(file.digest, id_ or 0)
        assert len(set(self.ids.values())) == len(self.ids)
        assert 0 not in self.ids.values()

    def _check_photographs(self, model: ModelIndex) -> None:
        mine = [digest for digest in self.ids if digest in model.of(self.key)]
        photos = self.store.photos([self.ids[digest] for digest in self.ids] + [10**9])
        assert [photo.sha256 for photo in photos] == [digest.hex() for digest in mine]
        features = self.store.features([self.ids[digest] for digest in self.ids])
        assert features.dtype == np.float32
        for digest, row in zip(self.ids, features, strict=True):
            expected = model.of(self.key)[digest].features if digest in mine else np.zeros(self.key.feature_shape)
            np.testing.assert_array_equal(row, expected)
        for digest, photo in zip(mine, photos, strict=True):
            described, files = model.of(self.key)[digest], model.files_of(digest)
            assert [os.fsencode(path) for path in photo.paths] == [file.path for file in files]
            assert [each.text for each in photo.alternatives] == [each.text for each in described.sentences]
            for one, other in zip(photo.alternatives, described.sentences, strict=True):
                assert (one.log_prob, one.confidence) == pytest.approx((other.log_prob, other.confidence), abs=1e-4)
            if files:
                assert (photo.size, photo.modified) == (files[0].size, files[0].modified / 1e9)

    def _check_words(self, model: ModelIndex, rng: random.Random) -> None:
        texts = model.words()
        digests = {id_: digest for digest, id_ in self.ids.items()}
        found = self.store.folded([*digests, 10**9])
        assert {digests[id_]: set(text.split()) for id_, text in found.items()} == {d: set(t) for d, t in texts.items()}
        query = rng.sample(["man", "dog", "run", "beach", "naïve", "日本", "3d", "snow_board", "nothing", "glasses"], 3)
        frequencies = {word: sum(word in text for text in texts.values()) for word in query}
        assert self.store.frequencies(query) == frequencies
        scores = model.bm25(query)
        candidates = [digests[id_] for id_ in self.store.candidates(query, 1000)]
        assert sorted(candidates) == sorted(scores)
        assert all(scores[one] >= scores[other] - 1e-9 for one, other in pairwise(candidates))
        assert [digests[id_] for id_ in self.store.candidates(query, 2)] == candidates[:2]

    def _check_changes(self, model: ModelIndex) -> None:
        changes = self.store.changes(self.revision)
        assert changes.revision >= self.revision
        self.revision = changes.revision
        assert changes.vectors.dtype == np.int8
        assert changes.vectors.shape == (len(changes.ids), self.key.vector_size)
        rows = zip(changes.ids.tolist(), changes.living.tolist(), changes.vectors, strict=True)
        self.mirror |= {id_: (living, vector.tobytes()) for id_, living, vector in rows}
        ids = {digest: self.ids[digest] for digest in model.living(self.key)}
        for digest, id_ in ids.items():
            vector = model.of(self.key)[digest].vector
            assert self.mirror[id_] == (True, b"" if vector is None else vector.tobytes())
        everything = self.store.changes(0)
        assert {id_ for id_, living in zip(everything.ids, everything.living, strict=True) if living} == {*ids.values()}
        assert len(self.store.changes(self.revision).ids) == 0

    def _check_vectors(self, model: ModelIndex, rng: random.Random) -> None:
        numbers = np.random.default_rng(rng.randrange(2**32))
        vector = numbers.standard_normal(self.key.vector_size).astype(np.float32)
        vector /= max(float(np.linalg.norm(vector)), 1e-9)
        expected = {self.ids[digest]: cosine for digest, cosine in model.cosines(self.key, vector).items()}
        nearest = self.store.nearest(vector, 1000)
        assert nearest == pytest.approx(expected, abs=1e-5)
        assert list(nearest.values()) == sorted(nearest.values(), reverse=True)
        assert list(self.store.nearest(vector, 3)) == list(nearest)[:3]
        living = {self.ids[digest]: 0.0 for digest in model.living(self.key)} | expected
        assert self.store.cosines(vector, [*self.ids.values(), 10**9]) == pytest.approx(living, abs=1e-5)
        for id_ in self.ids.values():
            found = self.store.vector(id_)
            assert (found is not None) == (id_ in expected)
            if found is not None:
                assert float(found @ vector) == pytest.approx(expected[id_], abs=1e-5)


@pytest.mark.parametrize("seed", range(2))
def test_a_store_knows_what_plain_dictionaries_know(opened_store: Open, seed: int) -> None:
    rng, model = random.Random(seed), ModelIndex()
    watched = [Watched(opened_store(key), key) for key in (SMALL, OTHER, PLAIN)]
    for step in range(30):
        each = rng.choice(watched)
        if rng.random() < 0.75:
            described, files = some_writes(rng, model, each.key)
            each.store.write(described, files)
            model.write(each.key, described, files)
        else:
            gone = [*rng.choices(PATHS, k=rng.randint(0, 4)), b"/unknown"]
            each.store.mark_missing(gone)
            model.mark_missing(gone)
        watched[step % 3].check(model, rng)
    for each in watched:
        each.check(model, rng)


def one_file(rng: random.Random, number: int, key: BundleKey = SMALL) -> tuple[list[Described], list[File]]:
    digest = digest_of(number)
    return [some_photograph(rng, key, digest)], [File(b"/p/%d.jpg" % number, 9, number, digest)]


def test_what_cannot_be_written_entirely_is_not_written(opened_store: Open) -> None:
    store, rng = opened_store(SMALL), random.Random(0)
    store.write(*one_file(rng, 1))
    described, files = one_file(rng, 2)
    with pytest.raises((StoreError, OverflowError)):
        store.write(described, [*files, replace(files[0], path=b"/p/large.jpg", size=2**70)])
    assert (store.counts().photos, store.described([digest_of(2)])) == (1, set())
    store.write(described, files)
    assert store.counts().photos == 2


def test_who_only_searches_changes_nothing(opened_store: Open) -> None:
    with pytest.raises(StoreError, match=r"there is no index .* makes one"):
        opened_store(SMALL, create=False)
    opened_store(OTHER)  # another bundle's
    reader, rng = opened_store(SMALL, create=False), random.Random(0)
    vector = np.array([1, 0, 0, 0], np.float32)
    assert (reader.counts().photos, reader.nearest(vector, 5), reader.cosines(vector, [1])) == (0, {}, {})
    assert reader.changes(0).vectors.shape == (0, 4)
    assert (reader.photos([1]), reader.vector(1), reader.candidates(["dog"], 5)) == ([], None, [])
    with pytest.raises(StoreError, match="opened to be searched only"):
        reader.write(*one_file(rng, 1))
    with pytest.raises(StoreError, match="opened to be searched only"):
        reader.mark_missing([b"/p/1.jpg"])
    opened_store(SMALL).write(*one_file(rng, 1))
    assert len(reader.nearest(vector, 5)) == len(reader.changes(0).ids) == 1


def test_words_that_no_caption_has_find_nothing_and_break_nothing(opened_store: Open) -> None:
    store, rng = opened_store(SMALL), random.Random(0)
    store.write(*one_file(rng, 1))
    words = ["x" * 100_000, "and", "not", "near", "ⅷ", "²", "𝔘", "_", *(f"word{i}" for i in range(800))]
    assert store.candidates(words, 5) == []
    assert store.frequencies(words) == dict.fromkeys(words, 0)
    assert store.candidates([], 5) == []


def test_threads_share_a_store(opened_store: Open) -> None:
    store, failures = opened_store(SMALL), []

    def work(number: int) -> None:
        rng = random.Random(number)
        try:
            for i in range(5):
                store.write(*one_file(rng, 5 * number + i))
                assert store.nearest(np.array([1, 0, 0, 0], np.float32), 100)
                assert store.counts().photos
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert store.counts().photos == len(store.nearest(np.array([1, 0, 0, 0], np.float32), 100)) == 30


def test_several_may_make_the_same_index_at_once(opened_store: Open) -> None:
    stores: list[Store] = []
    threads = [threading.Thread(target=lambda: stores.append(opened_store(SMALL))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(stores) == 6
    for number, store in enumerate(stores):
        store.write(*one_file(random.Random(number), number))
    assert {store.counts().photos for store in stores} == {6}


def test_a_closed_store_says_so(opened_store: Open) -> None:
    store = opened_store(SMALL)
    store.close()
    with pytest.raises(StoreError, match="closed"):
        store.counts()


def test_a_bundle_without_vectors_leaves_none_of_another_behind(opened_store: Open) -> None:
    rng = random.Random(0)
    opened_store(SMALL).write(*one_file(rng, 1))
    plain = opened_store(PLAIN)
    plain.write(*one_file(rng, 1, PLAIN))
    assert plain.changes(0).vectors.shape == (1, 0)
    assert opened_store(SMALL).nearest(np.array([1, 0, 0, 0], np.float32), 5) == {}
