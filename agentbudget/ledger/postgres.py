"""The ledger's rows in PostgreSQL, or in a database that speaks as it does: one ledger for many hosts.

Whoever writes locks the one row of ``head`` first. It orders the writers, carries the number and hash of the last
entry, and brings the server's clock along; what is read after it has the lock is what the writer before left. There
are no advisory locks, functions, triggers or notifications, so that CockroachDB, YugabyteDB and Aurora can serve too.
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from functools import lru_cache
from types import TracebackType
from typing import Any, Final

from agentbudget.errors import (
    InvalidArgument,
    MissingDependency,
    Mistake,
    SchemaMismatch,
    StoreBusy,
    StoreError,
    StoreInterrupted,
    StoreUnavailable,
)
from agentbudget.ledger.records import Entry, HoldRecord
from agentbudget.ledger.schema import VERSION, Dialect, another_version, migrate, tables
from agentbudget.ledger.sql import ADD_HOLD, ENTRY_COLUMNS, Cursor, Row, SqlTransaction, read_entry
from agentbudget.ledger.store import GENESIS

try:
    import psycopg
    from psycopg import sql as compose
    from psycopg.conninfo import conninfo_to_dict, make_conninfo
    from psycopg.pq import TransactionStatus
    from psycopg.types.numeric import Int8BinaryDumper
except ImportError as missing:
    raise MissingDependency(
        f"a ledger in PostgreSQL needs psycopg ({missing}): pip install 'agentbudget-runtime[postgres]'"
    ) from missing

SCHEMA: Final = "agentbudget"
"""The schema in the database that the tables are in, so that an application's own may be beside them."""

CONNECT_TIMEOUT_S: Final = 5
LOCK_TIMEOUT_S: Final = 10.0
STATEMENT_TIMEOUT_S: Final = 60.0
PATIENCE_S: Final = 10.0
"""How long a commit whose answer was lost is asked about, before its outcome is called unknown."""
BEGINS: Final = 5
"""How often a transaction is begun that the database gives up at its first statement."""
PAGE: Final = 1000
"""So many entries are fetched at once."""

_WRITE: Final = b"BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE"
_READ: Final = b"BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
_HEAD: Final = (
    "SELECT version, seq, hash, CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000000 AS BIGINT) FROM head WHERE id = 1"
)
_LOCK_HEAD: Final = f"{_HEAD} FOR UPDATE"
_PUT_HEAD: Final = b"UPDATE head SET seq = %s, hash = %s WHERE id = 1"

_GAVE_UP: Final = frozenset({"40001", "40P01"})
"""Serialization failure, deadlock: nothing remained, and the same again may pass."""
_LOST: Final = frozenset({"57P01", "57P02", "57P03", "25P03", "25P04", "57P05"})
"""The server ended the session."""
_ELSEWHERE: Final = frozenset({"25006"})
"""Read only: the server that was the first is now a replica of another."""
_CHANGED: Final = frozenset({"42P01", "42703", "3F000"})
"""No such table, column or schema."""
_CROSSED: Final = frozenset({"42P07", "42P06", "42710", "23505"}) | _GAVE_UP
"""Somebody else makes the same tables at this moment."""

Database = psycopg.Connection[Row]


class PostgresStore:
    """A `Store` in the database at `url`, in tables of its own schema, which are made if they are not there.

    One connection writes, another reads; each is opened anew when it is found broken. A wait for another writer's
    lock, or for an answer, that is longer than the timeouts say is an error, and nothing was admitted.
    """

    interruptible = True

    def __init__(
        self,
        url: str,
        *,
        schema: str = SCHEMA,
        lock_timeout_s: float = LOCK_TIMEOUT_S,
        statement_timeout_s: float = STATEMENT_TIMEOUT_S,
        patience_s: float = PATIENCE_S,
    ) -> None:
        self._server = _Server(url, schema, lock_timeout_s, statement_timeout_s, patience_s)
        self._server.migrate()
        self._writer = _Connection(self._server, writes=True)
        self._reader = _Connection(self._server, writes=False)

    @property
    def location(self) -> str:
        return self._server.location

    def write(self) -> _Connection:
        return self._writer

    def read(self) -> _Connection:
        return self._reader

    def close(self) -> None:
        self._reader.close()
        self._writer.close()


class PostgresTransaction(SqlTransaction):
    """A `Transaction` by psycopg; its clock is the server's, as it was when the transaction began."""

    def __init__(self, execute: Callable[[str, Row], Cursor]) -> None:
        super().__init__(execute)
        self._now_ns = 0

    def begin_at(self, seq: int, last_hash: bytes, now_ns: int) -> None:
        """See `begin`; ``now_ns`` is the server's time."""
        self.begin(seq, last_hash)
        self._now_ns = now_ns

    @property
    def last(self) -> tuple[int, bytes]:
        """The number and hash of the last entry."""
        return self._seq, self._hash

    def now_ns(self) -> int:
        return self._now_ns

    def add_hold(self, hold: HoldRecord) -> bool:
        values = (hold.number, hold.id, hold.parent, *hold.amount_units, "open", False, hold.owner, hold.tag or None)
        if self._execute(f"{ADD_HOLD} RETURNING number", values).fetchone() is None:
            return False
        self._holds[hold.id] = hold
        return True

    def entries(self, *, after: int = 0) -> Iterator[Entry]:
        sql = f"SELECT {ENTRY_COLUMNS} FROM entries WHERE seq > ? ORDER BY seq LIMIT {PAGE}"
        full = True
        while full:
            rows = list(self._execute(sql, (after,)))
            yield from map(read_entry, rows)
            full = len(rows) == PAGE
            after = rows[-1][0] if rows else after


class _Connection:
    """One connection, entered for one transaction at a time.

    Statements that give no rows go to the server together with the next one that does, or with the commit (psycopg's
    pipeline mode). Each such flight ends in a sync: between them the server sees a transaction that is idle, and ends
    it if its writer was stopped.
    """

    def __init__(self, server: _Server, *, writes: bool) -> None:
        self._server = server
        self._writes = writes
        self._lock = threading.Lock()
        self._pid = os.getpid()
        self._closed = False
        self._db: Database | None = None
        self._piped: AbstractContextManager[psycopg.Pipeline] | None = None
        self._pipeline: psycopg.Pipeline | None = None
        self._tx = PostgresTransaction(self._execute)
        self._began = -1

    def _execute(self, sql: str, values: Row = ()) -> Cursor:
        assert self._db is not None, "outside of its transaction"
        assert self._pipeline is not None
        query, has_rows = _translated(sql)
        cursor = self._db.execute(query, values)
        if has_rows:
            self._pipeline.sync()
        return cursor

    def __enter__(self) -> PostgresTransaction:
        if os.getpid() != self._pid:
            raise Mistake("a forked process cannot go on with its parent's ledger: open one of its own")
        self._lock.acquire()
        try:
            self._begin()
        except BaseException as error:
            self._drop()
            self._lock.release()
            if isinstance(error, psycopg.Error):
                raise self._server.fault(error) from error
            raise
        return self._tx

    def _begin(self) -> None:
        if self._closed:
            raise StoreUnavailable(
                f"the ledger {self._server.location} was closed; nothing was admitted", location=self._server.location
            )
        for begun in range(1, BEGINS + 1):
            kept = self._db is not None
            try:
                self._start()
                return
            except psycopg.Error as error:
                gave_up, lost = error.sqlstate in _GAVE_UP, kept and _is_lost(error)
                self._drop()
                if begun == BEGINS or not (gave_up or lost):
                    raise
                if gave_up:
                    time.sleep(random.random() * 0.01 * 2**begun)

    def _start(self) -> None:
        if self._db is None:
            self._db = self._server.connect(writes=self._writes)
            self._piped = self._db.pipeline()
            self._pipeline = self._piped.__enter__()
        self._db.execute(_WRITE if self._writes else _READ)
        head = self._execute(_LOCK_HEAD if self._writes else _HEAD).fetchone()
        if head is None:
            raise self._server.changed("its head is gone")
        version, self._began, last_hash, now_us = head
        if version != VERSION:
            raise another_version(self._server.location, version)
        self._tx.begin_at(self._began, last_hash, now_us * 1000)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._commit()
                return
            self._undo()
            if isinstance(error, psycopg.Error):
                raise self._server.fault(error) from error
        finally:
            self._lock.release()

    def _commit(self) -> None:
        assert self._db is not None
        assert self._pipeline is not None
        seq, digest = self._tx.last
        wrote = seq != self._began
        try:
            if wrote:
                self._db.execute(_PUT_HEAD, (seq, digest))
            done = self._db.execute(b"COMMIT")
            self._pipeline.sync()
            if done.statusmessage != "COMMIT":  # the server says ROLLBACK where something went wrong unseen
                raise psycopg.OperationalError(f"a commit ended in {done.statusmessage}")
        except psycopg.Error as error:
            unknown = error.sqlstate is None or error.sqlstate == "40003" or _is_lost(error)
            self._undo()
            if not self._writes and _is_lost(error):
                return  # what was read was right
            if wrote and unknown:
                if self._server.keeps(seq, digest, error):
                    return
                raise self._server.interrupted(error) from error
            raise self._server.fault(error) from error
        except BaseException:
            self._drop()
            raise

    def _undo(self) -> None:
        """Roll back, and trust nothing that was read. A connection that cannot do so much is dropped."""
        self._tx.forget()
        if self._db is None or self._pipeline is None:
            return
        with suppress(psycopg.Error):
            with suppress(psycopg.Error):  # what failed is known by now
                self._pipeline.sync()
            self._db.execute(b"ROLLBACK")
            self._pipeline.sync()
            if self._db.info.transaction_status == TransactionStatus.IDLE:
                return
        self._drop()

    def _drop(self) -> None:
        self._tx.forget()
        db, piped = self._db, self._piped
        self._db = self._piped = self._pipeline = None
        if db is not None:
            db.close()
        if piped is not None:
            with suppress(psycopg.Error):  # it misses the connection
                piped.__exit__(None, None, None)

    def close(self) -> None:
        if os.getpid() == self._pid:
            with self._lock:
                self._closed = True
                self._drop()


class _Server:
    """Where the database is, how it is reached, and what its errors mean. It never tells the password."""

    def __init__(
        self, url: str, schema: str, lock_timeout_s: float, statement_timeout_s: float, patience_s: float
    ) -> None:
        try:
            given = conninfo_to_dict(url)
        except psycopg.Error:  # its words may hold a part of the password
            raise InvalidArgument(
                "the ledger's address is not one of PostgreSQL: postgresql://user@host:5432/name",
                argument="location",
                value="postgresql://…",
            ) from None
        self._password = str(given.get("password") or "")
        self._schema = schema
        self._timeouts_s = (lock_timeout_s, statement_timeout_s)
        self._patience_s = patience_s
        defaults = {"connect_timeout": CONNECT_TIMEOUT_S, "application_name": "agentbudget", "keepalives_idle": 10}
        self._conninfo = make_conninfo("", **{**defaults, **given})
        self.location = _location(given)

    def connect(self, *, writes: bool = True) -> Database:
        """A connection that is set up. Raises `StoreUnavailable`."""
        try:
            db = psycopg.connect(self._conninfo, autocommit=True)
        except psycopg.Error as error:
            raise StoreUnavailable(
                f"cannot open the ledger {self.location}: {self._said(error)}; nothing was admitted",
                location=self.location,
            ) from error
        # One width for all numbers: else a statement is another one for each mixture of widths.
        db.adapters.register_dumper(int, Int8BinaryDumper)
        lock_s, statement_s = self._timeouts_s
        idle_s = lock_s if writes else 0  # a writer that was stopped must not keep the others waiting
        try:
            db.execute(
                compose.SQL(
                    "SET search_path TO {}; SET lock_timeout TO {}; SET statement_timeout TO {}; "
                    "SET idle_in_transaction_session_timeout TO {}"
                ).format(compose.Identifier(self._schema), *(int(s * 1000) for s in (lock_s, statement_s, idle_s)))
            )
        except BaseException:
            db.close()
            raise
        return db

    def keeps(self, seq: int, digest: bytes, lost: psycopg.Error) -> bool:
        """Whether an entry was committed, where the answer to the commit was lost.

        The lock on ``head`` waits until the lost transaction has ended. Raises `StoreUnavailable` if the server
        does not say.
        """
        until = time.monotonic() + self._patience_s
        while True:
            try:
                with closing(self.connect()) as db:
                    db.execute(_WRITE)
                    db.execute(_LOCK_HEAD.encode())
                    found = db.execute(b"SELECT hash FROM entries WHERE seq = %s", (seq,)).fetchone()
                    return found is not None and found[0] == digest
            except (psycopg.Error, StoreUnavailable):
                if time.monotonic() > until:
                    raise StoreUnavailable(
                        f"the ledger {self.location} was lost during a commit ({self._said(lost)}), and whether it was "
                        "booked is not known: ask again with the same id, which books it once",
                        location=self.location,
                    ) from lost
                time.sleep(random.random() * 0.1)

    # --- the tables

    def migrate(self) -> None:
        """Make the tables, or bring them to this version; somebody else may be doing the same."""
        for begun in range(1, BEGINS + 1):
            try:
                migrate(self.location, self._exclusively)
                return
            except psycopg.Error as error:
                if begun == BEGINS or error.sqlstate not in _CROSSED:
                    raise self.fault(error) from error
                time.sleep(random.random() * 0.05 * 2**begun)

    @contextmanager
    def _exclusively(self) -> Generator[_Tables]:
        with closing(self.connect()) as db:
            db.execute(b"BEGIN")
            yield _Tables(db, self)
            db.execute(b"COMMIT")

    @property
    def schema(self) -> str:
        """The schema that the tables are in."""
        return self._schema

    # --- errors

    def fault(self, error: psycopg.Error) -> StoreError | Mistake:
        """What the database said in a transaction, as an error of the tree."""
        state, said = error.sqlstate or "", self._said(error)
        lock_s, statement_s = self._timeouts_s
        if state == "55P03":
            return StoreBusy(
                f"another process kept the ledger {self.location} locked for more than {lock_s:g} s; "
                "nothing was admitted, try again when it is done",
                location=self.location,
            )
        if state == "57014":
            return StoreUnavailable(
                f"the ledger {self.location} did not answer within {statement_s:g} s ({said}); nothing was admitted",
                location=self.location,
            )
        if state in _CHANGED:
            return self.changed(said)
        if isinstance(error, psycopg.DataError):
            return Mistake(f"the ledger {self.location} cannot keep this: {said}")
        if state in _GAVE_UP or _is_lost(error):
            return self.interrupted(error)
        return StoreUnavailable(
            f"cannot use the ledger {self.location}: {said}; nothing was admitted", location=self.location
        )

    def interrupted(self, error: psycopg.Error) -> StoreInterrupted:
        """The error for a transaction of which nothing remains."""
        return StoreInterrupted(
            f"the ledger {self.location} gave up a transaction ({self._said(error)}); nothing was admitted, "
            "ask again with the same id",
            location=self.location,
        )

    def changed(self, said: str) -> SchemaMismatch:
        """The error for tables that are not as they were made."""
        return SchemaMismatch(
            f"schema {self._schema!r} of {self.location} has another program's tables, or the ledger's were changed "
            f"({said}); name another database",
            location=self.location,
        )

    def _said(self, error: psycopg.Error) -> str:
        text = "; ".join(line.strip() for line in str(error).splitlines()) or type(error).__name__
        return text.replace(self._password, "***") if self._password else text


class _Tables:
    """The tables of a database, for `migrate`."""

    steps: Mapping[int, Callable[[], None]] = {}

    def __init__(self, db: Database, server: _Server) -> None:
        self._db = db
        self._server = server

    def version(self) -> int | None:
        found = self._db.execute(
            b"SELECT table_name FROM information_schema.tables WHERE table_schema = %s", (self._server.schema,)
        )
        names = {name for (name,) in found}
        if "head" in names:
            row = self._db.execute(_LOCK_HEAD.encode()).fetchone()
            if row is None:
                raise self._server.changed("its head is gone")
            return row[0]
        taken = names & {"accounts", "periods", "holds", "entries", "marks", "leases"}
        if taken:
            raise self._server.changed(f"{', '.join(sorted(taken))} without a head")
        return None

    def create(self) -> None:
        (about,) = self._db.execute(b"SELECT version()").fetchone() or ("",)
        # CockroachDB compares text by its bytes in any case, and an owner's rights cannot be taken there.
        cockroach = "CockroachDB" in about
        text = "TEXT" if cockroach else 'TEXT COLLATE "C"'
        self._make_schema()
        for statement in tables(Dialect(integer="BIGINT", boolean="BOOLEAN", text=text, octets="BYTEA")):
            self._db.execute(statement.encode())
        if not cockroach:  # entries are immutable: by accident nobody changes one, on purpose the chain shows it
            self._db.execute(b"REVOKE UPDATE, DELETE, TRUNCATE ON entries FROM CURRENT_USER")
        self._db.execute(
            b"CREATE TABLE head (id BIGINT PRIMARY KEY CHECK (id = 1), version BIGINT NOT NULL, "
            b"seq BIGINT NOT NULL, hash BYTEA NOT NULL)"
        )
        self._db.execute(b"INSERT INTO head (id, version, seq, hash) VALUES (1, %s, 0, %s)", (VERSION, GENESIS))

    def _make_schema(self) -> None:
        there = self._db.execute(
            b"SELECT 1 FROM information_schema.schemata WHERE schema_name = %s", (self._server.schema,)
        ).fetchone()
        if there is None:
            self._db.execute(compose.SQL("CREATE SCHEMA {}").format(compose.Identifier(self._server.schema)))

    def set_version(self, version: int) -> None:
        self._db.execute(b"UPDATE head SET version = %s WHERE id = 1", (version,))


def _is_lost(error: psycopg.Error) -> bool:
    """Whether the session is gone, or the server is no longer the one that writes."""
    state = error.sqlstate
    if state is None:  # no answer of the server: psycopg's own words for a connection that broke
        return isinstance(error, psycopg.OperationalError | psycopg.InterfaceError)
    return state in _LOST or state in _ELSEWHERE or state.startswith("08")


@lru_cache(maxsize=256)
def _translated(sql: str) -> tuple[bytes, bool]:
    """A statement as psycopg takes it, and whether it gives rows."""
    return sql.replace("?", "%s").encode(), sql.startswith("SELECT") or " RETURNING " in sql


def _location(given: Mapping[str, Any]) -> str:
    """The address without its secrets."""
    user = f"{given['user']}@" if given.get("user") else ""
    host, port, name = (str(given.get(key) or "") for key in ("host", "port", "dbname"))
    where = f":{port}" if port else ""
    if host.startswith("/"):
        return f"postgresql://{user}{where}/{name}?host={host}"
    return f"postgresql://{user}{host}{where}/{name}"
