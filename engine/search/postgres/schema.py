"""The tables of an index on a PostgreSQL server: makes them, and refuses those of another version."""

import json

from psycopg import errors

from engine.errors import StoreError
from engine.search import words
from engine.search.postgres.server import Connection, Server, one
from engine.search.store import BundleKey

NAME = "photo_index"  # of the schema
VERSION = 1
PGVECTOR = (0, 8)  # the first version that finds enough where only some rows are wanted
MOST_INDEXED = 4000  # numbers of a vector: pgvector indexes no longer ones
# Words have a count of the photographs with them, and the facts count what a search needs to know, since counting
# millions of rows takes a second. Whoever writes locks the fact `revision` first, so writers come one after another,
# and whoever reads a revision sees all that was written up to it. A path may be longer than a key of an index.
TABLES = f"""
CREATE SCHEMA {NAME};
CREATE TABLE {NAME}.facts (name text PRIMARY KEY, value bigint NOT NULL);
INSERT INTO {NAME}.facts VALUES
    ('version', {VERSION}), ('folding', {words.VERSION}), ('revision', 0),
    ('files', 0), ('errors', 0), ('missing', 0), ('words', 0);
CREATE TABLE {NAME}.bundles (
    id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text NOT NULL, digest text NOT NULL UNIQUE,
    shape text NOT NULL, vector_size integer NOT NULL, living bigint NOT NULL);
CREATE TABLE {NAME}.photos (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, digest bytea NOT NULL UNIQUE, bundle integer NOT NULL,
    sentences text NOT NULL, living integer NOT NULL, revision bigint NOT NULL);
CREATE INDEX photos_by_revision ON {NAME}.photos (revision);
CREATE TABLE {NAME}.features (photo bigint PRIMARY KEY, features bytea NOT NULL) WITH (toast_tuple_target = 8160);
ALTER TABLE {NAME}.features ALTER features SET STORAGE EXTERNAL;
CREATE TABLE {NAME}.files (
    path bytea NOT NULL, size bigint NOT NULL, modified bigint NOT NULL, photo bigint, error text NOT NULL,
    missing boolean NOT NULL);
CREATE UNIQUE INDEX files_by_path ON {NAME}.files (sha256(path));
CREATE INDEX files_by_folder ON {NAME}.files (substr(path, 1, 2000));
CREATE INDEX files_by_photo ON {NAME}.files (photo);
CREATE TABLE {NAME}.words (photo bigint PRIMARY KEY, bundle integer NOT NULL, words tsvector NOT NULL);
CREATE INDEX photos_by_word ON {NAME}.words USING gin (words);
CREATE TABLE {NAME}.frequencies (word text COLLATE "C" PRIMARY KEY, photos bigint NOT NULL) WITH (fillfactor = 70);
"""
VECTORS = f"""
CREATE TABLE IF NOT EXISTS {NAME}.vectors (
    photo bigint PRIMARY KEY, bundle integer NOT NULL, living boolean NOT NULL, vector halfvec NOT NULL);
"""


def require_ours(server: Server) -> bool:
    """Returns whether there is an index. Raises StoreError for one of another version, or of another program."""
    exists, facts, encoding = server.rows(
        "SELECT to_regnamespace(%s) IS NOT NULL, to_regclass(%s) IS NOT NULL, current_setting('server_encoding')",
        *(NAME, f"{NAME}.facts"),
    )[0]
    if encoding != "UTF8":
        raise StoreError(f"{server.place} keeps texts as {encoding}: make a database with the encoding UTF8")
    if not exists:
        return False
    known = dict(server.rows(f"SELECT name, value FROM {NAME}.facts")) if facts else {}
    if "version" not in known:
        raise StoreError(f"{server.place} has a schema {NAME} that is no index of photographs: name another database")
    if known["version"] != VERSION:
        raise StoreError(
            f"{server.place} is an index of version {known['version']}, and this engine reads version {VERSION}: drop "
            f"its schema {NAME} and index the photographs again, or use the engine that made it"
        )
    return True


def require_same_words(server: Server) -> None:
    """Raises StoreError for an index whose words were folded by other rules."""
    if one(server.rows("SELECT value FROM facts WHERE name = 'folding'")) != words.VERSION:
        raise StoreError(
            f"{server.place} has words of another version of this engine: run `python -m engine index` once"
        )


def bundle_id(server: Server, key: BundleKey) -> int | None:
    """Returns the number of a bundle in the index; None if nothing was written for it."""
    rows = server.rows("SELECT id FROM bundles WHERE digest = %s", key.digest)
    return int(one(rows)) if rows else None


def prepare(server: Server, key: BundleKey) -> int:
    """Makes what is not there: the tables, and what a bundle needs. Returns the bundle's number. Raises StoreError."""
    with server.transaction() as connection:
        connection.execute("SELECT pg_advisory_xact_lock(hashtext(%s))", (NAME,))  # two may come at once
        # asks the table: what a function knew before the wait, it still believes
        if not connection.execute("SELECT 1 FROM pg_namespace WHERE nspname = %s", (NAME,)).fetchall():
            connection.execute(TABLES)
        rows = connection.execute("SELECT id FROM bundles WHERE digest = %s", (key.digest,)).fetchall()
        return int(one(rows)) if rows else _new_bundle(server, connection, key)


def _new_bundle(server: Server, connection: Connection, key: BundleKey) -> int:
    number = one(
        connection.execute(
            "INSERT INTO bundles (name, digest, shape, vector_size, living) VALUES (%s, %s, %s, %s, 0) RETURNING id",
            (key.name, key.digest, json.dumps(key.feature_shape), key.vector_size),
        ).fetchall()
    )
    if key.vector_size:
        _require_pgvector(server, connection)
        connection.execute(VECTORS)
        if key.vector_size <= MOST_INDEXED:
            connection.execute(
                f"CREATE INDEX nearest_of_bundle_{number} ON {NAME}.vectors USING hnsw "
                f"((vector::halfvec({key.vector_size})) halfvec_cosine_ops) WHERE bundle = {number} AND living"
            )
    return int(number)


def _require_pgvector(server: Server, connection: Connection) -> None:
    """Makes pgvector's types known in the database. Raises StoreError where it is missing, or too old."""
    wanted = ".".join(map(str, PGVECTOR))
    how = f"install pgvector {wanted} or later on the server (the Debian package is postgresql-VERSION-pgvector)"
    offered = connection.execute("SELECT 1 FROM pg_available_extensions WHERE name = 'vector'").fetchall()
    if not offered:
        raise StoreError(f"{server.place}: the server has no extension for vectors, which this bundle has: {how}")
    try:
        connection.execute("CREATE EXTENSION IF NOT EXISTS vector SCHEMA public")
    except errors.InsufficientPrivilege as error:
        raise StoreError(
            f"{server.place}: this user may not add the extension for vectors: have an administrator run CREATE "
            "EXTENSION vector in this database"
        ) from error
    version = str(one(connection.execute("SELECT extversion FROM pg_extension WHERE extname = 'vector'").fetchall()))
    if tuple(map(int, version.split(".")[:2])) < PGVECTOR:
        raise StoreError(
            f"{server.place}: its extension for vectors has version {version}: {how} and run ALTER EXTENSION vector "
            "UPDATE in this database"
        )
