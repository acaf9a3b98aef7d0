"""Connections to a PostgreSQL server, and what it says, in words. Knows no tables."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from queue import Empty, LifoQueue
from typing import Any

import psycopg
from psycopg import errors
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.pq import TransactionStatus

from engine.errors import StoreError
from engine.search.address import place_for_people

Connection = psycopg.Connection[tuple[Any, ...]]
CONNECTIONS = 4  # of a process: more threads wait
WAIT = 60  # seconds for another process to finish writing
CONNECT = 10  # seconds for the server to answer, unless the address says otherwise
SETTINGS = {
    "lock_timeout": f"{WAIT}s",
    "jit": "off",  # compiling takes longer than a search
    "hnsw.ef_search": "400",  # twice the candidates of a search: nearly all of the nearest are found
    "hnsw.iterative_scan": "strict_order",  # more results than that are found too
    "hnsw.max_scan_tuples": "40000",
    "hnsw.scan_mem_multiplier": "8",
}


class Server:
    """A few connections that threads borrow one by one; each is made when it is first needed."""

    def __init__(self, address: str, schema: str) -> None:
        """schema: where tables without a schema's name are looked for first. Raises StoreError for a bad address."""
        self.place = place_for_people(address)
        self._schema = schema
        try:
            options: dict[str, Any] = conninfo_to_dict(address)
        except psycopg.Error:  # it quotes the address, password and all
            options = {"host": "@"}
        if "@" in str(options.get("host", "")):
            raise StoreError(
                f"{self.place} is no address of a server: write postgresql://USER@HOST:PORT/DATABASE, with @, :, / "
                "and % in a name or a password as %40, %3A, %2F and %25"
            ) from None
        options = {"connect_timeout": CONNECT, "application_name": "captioning-engine", **options}
        self._options = make_conninfo("", **{**options, "client_encoding": "UTF8"})
        self._closed = False
        self._slots: LifoQueue[Connection | None] = LifoQueue()
        for _ in range(CONNECTIONS):
            self._slots.put(None)

    def rows(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        """Returns the rows of one statement, with bytes and numbers as they are sent. Raises StoreError."""
        with self.lent() as connection:
            return connection.execute(statement, values, binary=True).fetchall()

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """Lends a connection for statements that are carried out together or not at all. Raises StoreError."""
        with self.lent() as connection, connection.transaction():
            yield connection

    @contextmanager
    def lent(self) -> Iterator[Connection]:
        """Lends a connection to one thread. Raises what the server says as StoreError."""
        if self._closed:
            raise StoreError(f"{self.place}: the index was closed")
        connection = self._slots.get()
        try:
            connection = connection or self._connect()
            yield connection
        except psycopg.Error as error:
            lost = connection is not None and connection.broken
            if lost:
                self._close_idle()  # a server that restarted has dropped them all
            raise StoreError(f"{self.place}: {_reason(error, lost)}") from error
        finally:
            idle = connection is not None and connection.info.transaction_status == TransactionStatus.IDLE
            if connection is not None and (self._closed or not idle):
                connection.close()
            self._slots.put(connection if idle and not self._closed else None)

    def close(self) -> None:
        """Closes the connections, those that are lent when they come back."""
        self._closed = True
        self._close_idle()

    def _connect(self) -> Connection:
        # statements are not prepared: an index of one bundle is only used where the bundle is known when planning
        connection = psycopg.connect(self._options, autocommit=True, prepare_threshold=None)
        try:
            places = f"{self._schema}, " + str(one(connection.execute("SHOW search_path").fetchall()))
            for name, value in {**SETTINGS, "search_path": places}.items():
                connection.execute("SELECT set_config(%s, %s, false)", (name, value))
        except BaseException:
            connection.close()
            raise
        return connection

    def _close_idle(self) -> None:
        slots = []
        try:
            while True:
                slots.append(self._slots.get_nowait())
        except Empty:
            pass
        for connection in slots:
            if connection is not None:
                connection.close()
            self._slots.put(None)


def one(rows: Sequence[tuple[Any, ...]]) -> Any:
    """Returns the only value of the only row."""
    ((value,),) = rows
    return value


def _reason(error: psycopg.Error, lost: bool) -> str:
    """Returns what is wrong, and what to do, in words."""
    why = " ".join(str(error).split()).removeprefix("connection failed: ")
    if lost:
        return f"the connection was lost ({why}): what was written before is kept; try again"
    if isinstance(error, psycopg.OperationalError) and error.sqlstate is None:
        return (
            f"the server cannot be reached ({why}): check the address, and that the server runs and has this database"
        )
    for kind, said in REASONS.items():
        if isinstance(error, kind):
            return f"{said} ({why})"
    return f"the server refused a statement ({why})"


REASONS: dict[type[psycopg.Error], str] = {
    errors.InsufficientPrivilege: "this user lacks a right: have an administrator grant it",
    errors.ReadOnlySqlTransaction: "it may only be read here: name the server that takes changes",
    errors.LockNotAvailable: f"another process has been writing for more than {WAIT} seconds: try again later",
    errors.QueryCanceled: "the server stopped a statement that took too long: raise its statement_timeout",
    errors.DiskFull: "the server's disk is full: make room and run the same command again",
    errors.InsufficientResources: "the server has run out of something: make room and run the same command again",
    errors.UndefinedTable: "it has no index any more: index the photographs again",
    errors.DataCorrupted: "it is damaged: restore it, or index the photographs again",
}
