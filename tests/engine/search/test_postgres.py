"""What only a server can do: be lost, refuse rights, be another program's; and addresses with passwords."""

import random
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.errors import StoreError
from engine.search.address import place_for_people
from engine.search.photo import File
from engine.search.place import open_store
from engine.search.store import BundleKey, Store
from tests.engine.search.test_stores import OTHER, PLAIN, SMALL, digest_of, one_file, some_photograph

VECTOR = np.array([1, 0, 0, 0], np.float32)


@contextmanager
def closing(place: str, key: BundleKey = SMALL, *, create: bool = True) -> Iterator[Store]:
    store = open_store(place, key, create=create)
    try:
        yield store
    finally:
        store.close()


def run_sql(place: str, *statements: str) -> list[tuple[Any, ...]]:
    """Runs statements as the superuser and returns the rows of the last."""
    import psycopg

    with psycopg.connect(place, autocommit=True) as connection:
        for statement in statements:
            cursor = connection.execute(statement)
        return cursor.fetchall() if cursor.description else []


def filled(place: str, count: int = 3, key: BundleKey = SMALL) -> None:
    with closing(place, key) as store:
        for number in range(count):
            store.write(*one_file(random.Random(number), number, key))


def test_a_lost_connection_is_one_error_and_the_next_call_connects_again(postgres_place: str) -> None:
    filled(postgres_place)
    with closing(postgres_place) as store:
        threads = [threading.Thread(target=store.counts) for _ in range(8)]  # several connections are idle then
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        others = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()"
        run_sql(postgres_place, f"{others} AND pid != pg_backend_pid()")
        with pytest.raises(StoreError, match=r"the connection was lost .*: what was written before is kept; try again"):
            store.counts()
        for _ in range(6):
            assert store.counts().photos == 3


def test_a_transaction_that_is_lost_wrote_nothing(postgres_place: str) -> None:
    from engine.search.postgres.writing import Writing

    filled(postgres_place)
    with closing(postgres_place) as store, pytest.MonkeyPatch.context() as patch:

        def lose(writing: Writing, photos: set[int]) -> None:
            writing._rows("SELECT pg_terminate_backend(pg_backend_pid())")

        patch.setattr(Writing, "renew", lose)
        with pytest.raises(StoreError, match="the connection was lost"):
            store.write(*one_file(random.Random(9), 9))
        assert store.described([digest_of(9)]) == set()
        assert store.counts().files == 3


def test_a_revision_is_seen_only_with_all_that_was_written_before_it(postgres_place: str) -> None:
    filled(postgres_place, 0)
    writers = [threading.Thread(target=lambda first=first: write_some(postgres_place, first)) for first in (0, 10, 20)]
    with closing(postgres_place, create=False) as reader:
        seen: set[int] = set()
        revision = 0
        for thread in writers:
            thread.start()
        while any(thread.is_alive() for thread in writers):
            changes = reader.changes(revision)
            revision, seen = changes.revision, seen | {*changes.ids.tolist()}
        seen |= {*reader.changes(revision).ids.tolist()}
        assert seen == {*reader.changes(0).ids.tolist()}
        assert len(seen) == 30


def write_some(place: str, first: int) -> None:
    with closing(place) as store:
        for number in range(first, first + 10):
            store.write(*one_file(random.Random(number), number))


def test_a_user_who_may_only_read_can_search_and_is_told_so(postgres_place: str) -> None:
    filled(postgres_place)
    run_sql(
        postgres_place,
        "DROP ROLE IF EXISTS reader",
        "CREATE ROLE reader LOGIN",
        "GRANT USAGE ON SCHEMA photo_index TO reader",
        "GRANT SELECT ON ALL TABLES IN SCHEMA photo_index TO reader",
    )
    place = postgres_place.replace("owner@", "reader@")
    try:
        with closing(place, create=False) as store:
            assert len(store.nearest(VECTOR, 5)) == len(store.photos(list(store.nearest(VECTOR, 5)))) == 3
        with (
            closing(place) as store,
            pytest.raises(StoreError, match=r"this user lacks a right: .* \(permission denied"),
        ):
            store.write(*one_file(random.Random(9), 9))
        with pytest.raises(StoreError, match="this user lacks a right"):
            open_store(place, OTHER, create=True)  # for which a graph has to be made
    finally:
        run_sql(postgres_place, "DROP OWNED BY reader", "DROP ROLE reader")


def test_who_may_not_add_the_extension_is_told_who_may(postgres_place: str) -> None:
    run_sql(
        postgres_place,
        "DROP ROLE IF EXISTS writer",
        "CREATE ROLE writer LOGIN",
        "DO $$ BEGIN EXECUTE 'GRANT ALL ON DATABASE ' || current_database() || ' TO writer'; END $$",
    )
    place = postgres_place.replace("owner@", "writer@")
    try:
        with pytest.raises(StoreError, match="have an administrator run CREATE EXTENSION vector in this database"):
            open_store(place, SMALL, create=True)
        with closing(place, PLAIN) as store:  # which needs none
            store.write(*one_file(random.Random(0), 0, PLAIN))
        run_sql(postgres_place, "CREATE EXTENSION vector")
        filled(place)
        with closing(place, create=False) as store:
            assert len(store.nearest(VECTOR, 5)) == 3
    finally:
        run_sql(postgres_place, "DROP OWNED BY writer", "DROP ROLE writer")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("UPDATE photo_index.facts SET value = 7 WHERE name = 'version'", "is an index of version 7, and this engine"),
        ("UPDATE photo_index.facts SET value = 0 WHERE name = 'folding'", "words of another version of this engine"),
        ("DROP TABLE photo_index.facts", "has a schema photo_index that is no index of photographs"),
    ],
)
def test_an_index_that_this_engine_does_not_read_is_refused(postgres_place: str, change: str, said: str) -> None:
    filled(postgres_place, 1)
    run_sql(postgres_place, change)
    with pytest.raises(StoreError, match=said):
        open_store(postgres_place, SMALL, create=False)
    if "folding" not in change:
        with pytest.raises(StoreError, match=said):
            open_store(postgres_place, SMALL, create=True)


def test_words_of_another_version_are_folded_again_by_who_writes(postgres_place: str) -> None:
    with closing(postgres_place) as store:
        described, files = one_file(random.Random(0), 0)
        store.write(described, files)
        before = store.folded([1])
    run_sql(
        postgres_place,
        "UPDATE photo_index.facts SET value = 0 WHERE name = 'folding'",
        "UPDATE photo_index.words SET words = 'old'::tsvector",
    )
    with closing(postgres_place) as store:
        assert store.folded([1]) == before
    with closing(postgres_place, create=False) as store:
        assert store.folded([1]) == before


def test_a_database_that_keeps_other_texts_is_refused(postgres_place: str) -> None:
    run_sql(postgres_place, "CREATE DATABASE latin ENCODING 'LATIN1' TEMPLATE template0")
    try:
        with pytest.raises(StoreError, match="keeps texts as LATIN1: make a database with the encoding UTF8"):
            open_store(postgres_place.replace("/postgres?", "/latin?"), SMALL, create=True)
    finally:
        run_sql(postgres_place, "DROP DATABASE latin")


def test_a_folder_with_a_path_longer_than_a_key_is_indexed(postgres_place: str) -> None:
    deep = b"/" + b"\xff".join(random.Random(0).randbytes(3900).split(b"/"))
    photograph = some_photograph(random.Random(0), SMALL, digest_of(1))
    with closing(postgres_place) as store:
        store.write([photograph], [File(deep + name, 1, 1, digest_of(1)) for name in (b"/a", b"/b", b"")])
        assert sorted(store.files_in(deep)) == [deep + b"/a", deep + b"/b"]
        assert store.id_of(deep + b"/a") == 1


@pytest.mark.parametrize(
    "address",
    [
        "postgresql://me:secret@localhost:1/photos",
        "postgres://me:secret@localhost:1/photos",
        "postgresql://me:secret@localhost:port/photos",
        "postgresql://me:sec@secret@localhost:1/photos",
        "postgresql://me:secret?secret@localhost:1/photos",
        "postgresql://me:secret/@localhost:1/photos",
        "postgresql://me@localhost:1/photos?password=secret",
        "postgresql://me@localhost:1/photos?passwort=secret",
        "postgresql://me:secret@[::1/photos",
        "postgresql://:secret@",
    ],
)
def test_a_password_is_in_no_message(address: str) -> None:
    pytest.importorskip("psycopg")
    with pytest.raises(StoreError) as caught:
        open_store(address, SMALL, create=True)
    error: BaseException | None = caught.value
    assert "\n" not in str(error)
    while error is not None:  # a trace shows the causes too
        assert "secret" not in str(error)
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    assert "secret" not in place_for_people(address)


def test_a_server_that_is_not_there_says_so(tmp_path: Path) -> None:
    pytest.importorskip("psycopg")
    with pytest.raises(
        StoreError, match=r"the server cannot be reached \(.*\): check the address, and that the server"
    ):
        open_store(f"postgresql://owner@/photos?host={tmp_path}", SMALL, create=False)


def test_a_missing_package_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    for name in [name for name in sys.modules if name.startswith("engine.search.postgres.")]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(
        StoreError, match=r"needs psycopg, .*: run python -m pip install '\.\[postgres\]' in a checkout"
    ):
        open_store("postgresql://localhost/photos", SMALL, create=False)


def test_a_graph_of_vectors_answers_and_finds_nearly_all_of_the_nearest(postgres_place: str) -> None:
    vectors = np.random.default_rng(0).integers(-127, 128, (600, 4)).astype(np.int8)
    rng = random.Random(0)
    described = [
        replace(some_photograph(rng, SMALL, number.to_bytes(32, "big")), vector=vector)
        for number, vector in enumerate(vectors)
    ]
    # so few are otherwise compared one by one
    forced = "&options=-cenable_seqscan%3Doff%20-cenable_sort%3Doff%20-cenable_bitmapscan%3Doff"
    with closing(postgres_place + forced) as store:
        store.write(described, [File(each.digest, 1, 1, each.digest) for each in described])
        query = "SELECT photo FROM photo_index.vectors WHERE bundle = 1 AND living "
        query += "ORDER BY (vector::halfvec(4)) <=> '[1,0,0,0]' LIMIT 110"
        plan = "\n".join(row[0] for row in run_sql(postgres_place + forced, f"EXPLAIN {query}"))
        assert "nearest_of_bundle_1" in plan
        exact = vectors @ VECTOR / np.linalg.norm(vectors, axis=1)
        found = store.nearest(VECTOR, 100)
        assert len(found) == 100
        assert len(set(found) & {int(place) + 1 for place in np.argsort(-exact)[:100]}) >= 95
        assert len(store.nearest(VECTOR, 550)) == 550  # more than one look into the graph gives
