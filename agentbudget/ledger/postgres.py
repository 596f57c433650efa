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
from collections.abc import Callable, Generator, Mapping
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
from agentbudget.forks import watch
from agentbudget.ledger.interrupts import owned, refuse_inside
from agentbudget.ledger.records import Account, HoldRecord
from agentbudget.ledger.schema import VERSION, Dialect, another_version, migrate, tables
from agentbudget.ledger.sql import ADD_HOLD, NEWS, Cursor, Row, SqlTransaction
from agentbudget.ledger.store import GENESIS

try:
    import psycopg
    from psycopg import sql as compose
    from psycopg.conninfo import conninfo_to_dict, make_conninfo
    from psycopg.generators import send
    from psycopg.pq import TransactionStatus
    from psycopg.types.numeric import Int8BinaryDumper
except ImportError as missing:
    raise MissingDependency(
        f"a ledger in PostgreSQL needs psycopg ({missing}): pip install 'agentbudget-runtime[postgres]'"
    ) from missing

SCHEMA: Final = "agentbudget"
"""The schema in the database that the tables are in, so that an application's own may be beside them."""

LOCK_TIMEOUT_S: Final = 10.0
STATEMENT_TIMEOUT_S: Final = 60.0
PATIENCE_S: Final = 10.0
"""How long a commit whose answer was lost is asked about, before its outcome is called unknown."""
BEGINS: Final = 5
"""How often a transaction is begun that the database gives up at its first statement."""

_DEFAULTS: Final = {
    "application_name": "agentbudget",
    "connect_timeout": 5,
    # A host that went away without a word is missed within half a minute.
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 25_000,
}
"""What an address may say otherwise."""

_WRITE: Final = b"BEGIN ISOLATION LEVEL READ COMMITTED"
"""The lock comes first, and each statement sees what was committed before it: all that the writer before left."""
_READ: Final = b"BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
_HEAD: Final = compose.SQL(
    "SELECT version, seq, hash, CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000000 AS BIGINT), pg_backend_pid() "
    "FROM {}.head WHERE id = 1"
)
"""It names its schema, and the session: a pooler may have handed the transaction to one that is not set up."""
_NEWS: Final = NEWS.replace("?", "%s").encode()
_PUT_HEAD: Final = b"UPDATE head SET seq = %s, hash = %s WHERE id = 1"

_KEEP_ALL: Final = ("UTF8", "SQL_ASCII", None)
"""The encodings of databases that keep what they are given; None where the server does not say."""
_GAVE_UP: Final = frozenset({"40001", "40P01"})
"""Serialization failure, deadlock: nothing remained, and the same again may pass."""
_LOST: Final = frozenset({"57P01", "57P02", "57P03", "25P03", "25P04", "57P05"})
"""The server ended the session."""
_ELSEWHERE: Final = frozenset({"25006"})
"""Read only: the server that was the first is now a replica of another."""
_CHANGED: Final = frozenset({"42P01", "42703", "3F000"})
"""No such table, column or schema."""
_POOLED: Final = frozenset({"26000", "42P05"})
"""No such prepared statement, or one of that name: of another client's in the same session."""
_CROSSED: Final = frozenset({"42P07", "42P06", "42710", "23505"}) | _GAVE_UP
"""Somebody else makes the same tables at this moment."""

Database = psycopg.Connection[Row]


class PostgresStore:
    """A `Store` in the database at `url`, in tables of its own schema, which are made if they are not there.

    One connection writes, another reads; each is opened anew when it is found broken, and in a process that was
    forked from this one. A wait for another writer's lock, or for an answer, that is longer than the timeouts say is
    an error, and nothing was admitted.
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
        watch(self)

    @property
    def location(self) -> str:
        return self._server.location

    def write(self) -> _Connection:
        return self._writer

    def read(self) -> _Connection:
        return self._reader

    def glance(self, account: str) -> Account | None:
        return None

    def close(self) -> None:
        self._reader.close()
        self._writer.close()

    def before_fork(self) -> None:
        self._writer.rest()
        self._reader.rest()

    def after_fork(self, *, child: bool) -> None:
        self._writer.after_fork(child=child)
        self._reader.after_fork(child=child)


class PostgresTransaction(SqlTransaction):
    """A `Transaction` by psycopg; its clock is the server's, as it was when the transaction began.

    ``look`` makes sure that the head has come, which gives it the number of the last entry and the time.
    """

    def __init__(self, execute: Callable[[str, Row], Cursor], look: Callable[[], None]) -> None:
        super().__init__(execute)
        self._look = look
        self.at_ns = 0

    def now_ns(self) -> int:
        self._look()
        return self.at_ns

    def next_seq(self) -> int:
        self._look()
        return super().next_seq()

    def add_hold(self, hold: HoldRecord) -> bool:
        values = (hold.number, hold.id, hold.parent, *hold.amount_units, "open", False, hold.owner, hold.tag or None)
        if self._execute(f"{ADD_HOLD} RETURNING number", values).fetchone() is None:
            return False
        self._holds[hold.id] = hold
        return True


class _Connection:
    """One connection, entered for one transaction at a time.

    Statements that give no rows go to the server together with the next one that does, or with the commit (psycopg's
    pipeline mode). Each such flight ends in a sync: between them the server sees a transaction that is idle, and ends
    it if its writer was stopped.
    """

    def __init__(self, server: _Server, *, writes: bool) -> None:
        self._server = server
        self._writes = writes
        self._lock = threading.RLock()
        self._inside = False
        self._resting = False
        self._closed = ""
        """Why it can be used no more."""
        self._db: Database | None = None
        self._session = 0
        """The server's process that was set up for it."""
        self._piped: AbstractContextManager[psycopg.Pipeline] | None = None
        self._pipeline: psycopg.Pipeline | None = None
        self._head: psycopg.Cursor[Row] | None = None
        self._news: psycopg.Cursor[Row] | None = None
        """What a transaction asks for first, until it is looked at."""
        self._tx = PostgresTransaction(self._execute, self._look)
        self._began = -1
        self._changed = self._busy = False
        """Whether the transaction changed anything, and whether one has begun that has not ended."""

    # --- what goes to the server

    def _execute(self, sql: str, values: Row = ()) -> Cursor:
        query, has_rows, changes = _translated(sql)
        cursor = self._connected().execute(query, values)
        self._changed = self._changed or changes
        if has_rows:
            self._fly()
        return cursor

    def _connected(self) -> Database:
        assert self._db is not None, "a transaction without a connection"
        return self._db

    def _fly(self) -> None:
        """Send what was asked for, and wait for the answers."""
        assert self._pipeline is not None
        db = self._connected()
        if db.pgconn.flush():  # a pipeline would wait for the answer to what has not all left
            db.wait(send(db.pgconn))
        try:
            self._pipeline.sync()
        except psycopg.Error as error:
            if error.sqlstate in _CHANGED and self._head is not None and self._head.rowcount == 1:
                self._arrive(self._head)  # it may tell that what came after it was asked in another session
            raise
        if self._head is not None:
            self._arrive(self._head)

    def _look(self) -> None:
        if self._head is not None:
            self._fly()

    def _arrive(self, asked: psycopg.Cursor[Row]) -> None:
        self._head = None
        head = asked.fetchone()
        if head is None:
            raise self._server.changed("its head is gone")
        if head[-1] != self._session:
            self._drop()  # it knows statements by names that are others' elsewhere
            raise self._server.pooled()
        version, self._began, last_hash, now_us, _ = head
        if version != VERSION:
            raise another_version(self._server.location, version)
        self._tx.at_ns = now_us * 1000
        if self._news is not None:
            self._tx.catch_up(self._news.fetchall(), self._began, last_hash)
        else:
            self._tx.begin(self._began, last_hash)

    # --- a transaction

    def __enter__(self) -> PostgresTransaction:
        try:
            # Who reads may take long, and keeps nobody from writing.
            if not self._lock.acquire(timeout=self._server.lock_timeout_s if self._writes else -1):
                raise self._server.busy()
            if self._inside:
                self._interrupted()
            self._inside = True
            self._begin()
        except Mistake:
            raise  # the transaction around goes on
        except BaseException as error:
            if owned(self._lock):
                self.__exit__(type(error), None, None)
            if isinstance(error, psycopg.Error):
                raise self._server.fault(error) from error
            raise
        return self._tx

    def _interrupted(self) -> None:
        """This thread has the lock already: by an interrupt in its last transaction, or since it is still in it."""
        self._lock.release()  # it was taken twice
        refuse_inside(self._tx)

    def _begin(self) -> None:
        if self._closed:
            raise StoreUnavailable(
                f"the ledger {self._server.location} {self._closed}; open it again with Ledger.open",
                location=self._server.location,
            )
        if self._busy:  # an interrupt broke the last one off, perhaps in the middle of a word to the server
            self._drop()
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
        self._busy = True
        if self._db is None:
            self._db, self._session = self._server.connect(writes=self._writes)
            self._piped = self._db.pipeline()
            self._pipeline = self._piped.__enter__()
        self._changed = False
        self._news = None
        # Not prepared: in another session its name may be that of anything, outside of a transaction.
        self._db.execute(_WRITE if self._writes else _READ, prepare=False)
        self._head = self._db.execute(self._server.lock_head if self._writes else self._server.head)
        if not self._writes:
            self._tx.forget()  # the head comes along with what is read first
            return
        if self._tx.fresh:
            self._news = self._db.execute(_NEWS, self._tx.last[:1])
        self._fly()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._commit()
            elif issubclass(kind, Exception):
                self._roll_back()
        finally:
            try:
                if self._busy:
                    self._drop()
            finally:
                self._inside = False
                self._lock.release()
        if isinstance(error, psycopg.Error):
            raise self._server.fault(error) from error
        if isinstance(error, UnicodeEncodeError):
            raise InvalidArgument(
                f"ids and names are text without lone surrogates: {error}", argument="id", value=error.object
            ) from error

    def _commit(self) -> None:
        db = self._connected()
        seq, digest = self._tx.last
        wrote = self._writes and seq != self._began
        try:
            if wrote:
                db.execute(_PUT_HEAD, (seq, digest))
            done = db.execute(b"COMMIT")
            self._fly()
            if done.statusmessage != "COMMIT":  # the server says ROLLBACK where something went wrong unseen
                raise psycopg.OperationalError(f"a commit ended in {done.statusmessage}")
            self._busy = False
        except psycopg.Error as error:
            unknown = error.sqlstate is None or error.sqlstate == "40003" or _is_lost(error)
            self._drop()
            if not self._writes and unknown:
                return  # what was read was right
            if wrote and unknown:
                if self._server.keeps(seq, digest, error):
                    return
                raise self._server.interrupted(error) from error
            raise self._server.fault(error) from error

    def _roll_back(self) -> None:
        """A connection that cannot do so much stays busy, and is dropped."""
        if self._db is None or self._pipeline is None:
            return
        self._head = None
        for _ in range(2):  # once more where the first is passed over, in a flight that had failed
            with suppress(psycopg.Error):
                self._db.execute(b"ROLLBACK")
                self._fly()
                if self._db.info.transaction_status == TransactionStatus.IDLE:
                    if self._changed:
                        self._tx.forget()  # what it knows was never so
                    self._busy = False
                    return

    def _drop(self) -> None:
        """Close the connection; the next transaction opens another."""
        self._tx.forget()
        self._head = self._news = None
        if self._db is not None:
            self._db.close()
        if self._piped is not None:
            with suppress(Exception):  # the pipeline misses its connection; nobody needs either
                self._piped.__exit__(None, None, None)
        self._db = self._piped = self._pipeline = None
        self._busy = False

    # --- its life

    def close(self) -> None:
        """Close it for good, once nobody is inside."""
        with self._lock:
            self._closed = self._closed or "was closed"
            self._drop()

    def rest(self) -> None:
        """Before a fork: let whoever is inside finish, so that the child inherits nothing half done."""
        self._resting = self._lock.acquire(timeout=self._server.lock_timeout_s)

    def after_fork(self, *, child: bool) -> None:
        """In the parent, go on; in a child, let go of the parent's connection, and open one when it is needed."""
        if not child:
            if self._resting:
                self._lock.release()
            return
        self._lock, self._inside = threading.RLock(), False
        if self._db is not None:
            _cut(self._db)
        if self._resting:
            self._drop()
        else:
            self._closed = "was in the middle of a transaction when this process was forked"


def _cut(db: Database) -> None:
    """Let a connection end in nothing, so that its farewell does not reach the server, who would take it for the
    parent's."""
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, db.fileno())
    os.close(nothing)


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
        self._secrets = [str(given[key]) for key in ("password", "sslpassword") if given.get(key)]
        self._schema = schema
        self.head = _HEAD.format(compose.Identifier(schema)).as_bytes(None)
        self.lock_head = self.head + b" FOR UPDATE"
        self.lock_timeout_s = lock_timeout_s
        self._statement_timeout_s = statement_timeout_s
        self._patience_s = patience_s
        self._conninfo = make_conninfo("", **{**_DEFAULTS, **given, "client_encoding": "UTF8"})
        self.location = _location(given)

    def connect(self, *, writes: bool = True) -> tuple[Database, int]:
        """A connection that is set up, and the server's process at its other end. Raises `StoreUnavailable`."""
        try:
            db = psycopg.connect(self._conninfo, autocommit=True)
        except psycopg.Error as error:
            raise StoreUnavailable(
                f"cannot open the ledger {self.location}: {self._said(error)}; nothing was admitted",
                location=self.location,
            ) from error
        encoding = db.info.parameter_status("server_encoding")
        if encoding not in _KEEP_ALL:
            db.close()
            raise SchemaMismatch(
                f"the database of the ledger {self.location} has the encoding {encoding}, which does not keep every "
                "name: make it with ENCODING 'UTF8'",
                location=self.location,
            )
        # One width for all numbers: else a statement is another one for each mixture of widths.
        db.adapters.register_dumper(int, Int8BinaryDumper)
        lock_s, statement_s = self.lock_timeout_s, self._statement_timeout_s
        idle_s = lock_s if writes else 0  # a writer that was stopped must not keep the others waiting
        try:
            asked = db.execute(
                compose.SQL(
                    "SELECT pg_backend_pid(); SET search_path TO {}; SET lock_timeout TO {}; "
                    "SET statement_timeout TO {}; SET idle_in_transaction_session_timeout TO {}"
                ).format(compose.Identifier(self._schema), *(int(s * 1000) for s in (lock_s, statement_s, idle_s)))
            )
            return db, _pid(asked)
        except BaseException:
            db.close()
            raise

    def keeps(self, seq: int, digest: bytes, lost: psycopg.Error) -> bool:
        """Whether an entry was committed, where the answer to the commit was lost.

        The lock on ``head`` waits until the lost transaction has ended. Raises `StoreUnavailable` if the server
        does not say.
        """
        until = time.monotonic() + self._patience_s
        while True:
            try:
                db, _ = self.connect()
                with closing(db):
                    db.execute(_WRITE)
                    db.execute(self.lock_head)
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
        db, session = self.connect()
        with closing(db):
            db.execute(b"BEGIN")
            if _pid(db.execute(b"SELECT pg_backend_pid()")) != session:
                raise self.pooled()
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
        if state == "55P03":
            return self.busy()
        if state == "57014":
            return StoreUnavailable(
                f"the ledger {self.location} did not answer within {self._statement_timeout_s:g} s ({said}); "
                "nothing was admitted",
                location=self.location,
            )
        if state in _CHANGED:
            return self.changed(said)
        if state in _POOLED:
            return self.pooled()
        if isinstance(error, psycopg.DataError):
            return Mistake(f"the ledger {self.location} cannot keep this: {said}")
        if state in _GAVE_UP or _is_lost(error):
            return self.interrupted(error)
        return StoreUnavailable(
            f"cannot use the ledger {self.location}: {said}; nothing was admitted", location=self.location
        )

    def busy(self) -> StoreBusy:
        """The error for a wait that was too long."""
        return StoreBusy(
            f"somebody else kept the ledger {self.location} locked for more than {self.lock_timeout_s:g} s; "
            "nothing was admitted, try again when it is done",
            location=self.location,
        )

    def interrupted(self, error: psycopg.Error) -> StoreInterrupted:
        """The error for a transaction of which nothing remains."""
        return StoreInterrupted(
            f"the ledger {self.location} gave up a transaction ({self._said(error)}); nothing was admitted, "
            "ask again with the same id",
            location=self.location,
        )

    def forbidden(self) -> StoreUnavailable:
        """The error for a role that the schema is closed to."""
        return StoreUnavailable(
            f"the role of {self.location} may not use the schema {self._schema!r}: GRANT USAGE on it, and SELECT, "
            "INSERT, UPDATE and DELETE on its tables (SELECT alone for who only reads); nothing was admitted",
            location=self.location,
        )

    def pooled(self) -> StoreUnavailable:
        """The error for a connection whose transactions go to sessions of the server that it shares with others."""
        return StoreUnavailable(
            f"a pooler before the ledger {self.location} hands each transaction to another session: let it pool by "
            "session, or give the server's own address; nothing was admitted",
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
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text


class _Tables:
    """The tables of a database, for `migrate`."""

    steps: Mapping[int, Callable[[], None]] = {}

    def __init__(self, db: Database, server: _Server) -> None:
        self._db = db
        self._server = server

    def version(self) -> int | None:
        # Of the catalog: information_schema hides what a role has no right to, as if no ledger were there.
        found = dict[str, bool](
            self._db.execute(
                b"SELECT tablename, has_schema_privilege(schemaname, 'USAGE') FROM pg_catalog.pg_tables "
                b"WHERE schemaname = %s",
                (self._server.schema,),
            )
        )
        if not all(found.values()):
            raise self._server.forbidden()
        names = set(found)
        if "head" in names:
            row = self._db.execute(self._server.head).fetchone()
            if row is not None and row[0] != VERSION:
                row = self._db.execute(self._server.lock_head).fetchone()  # somebody else may bring it here just now
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
            b"SELECT 1 FROM pg_catalog.pg_namespace WHERE nspname = %s", (self._server.schema,)
        ).fetchone()
        if there is None:
            self._db.execute(compose.SQL("CREATE SCHEMA {}").format(compose.Identifier(self._server.schema)))

    def set_version(self, version: int) -> None:
        self._db.execute(b"UPDATE head SET version = %s WHERE id = 1", (version,))


def _pid(asked: psycopg.Cursor[Row]) -> int:
    (pid,) = asked.fetchone() or (0,)
    return pid


def _is_lost(error: psycopg.Error) -> bool:
    """Whether the session is gone, or the server is no longer the one that writes."""
    state = error.sqlstate
    if state is None:  # no answer of the server: psycopg's own words for a connection that broke
        return isinstance(error, psycopg.OperationalError | psycopg.InterfaceError)
    return state in _LOST or state in _ELSEWHERE or state.startswith("08")


@lru_cache(maxsize=256)
def _translated(sql: str) -> tuple[bytes, bool, bool]:
    """A statement as psycopg takes it, whether it gives rows, and whether it changes some."""
    reads = sql.startswith("SELECT")
    return sql.replace("?", "%s").encode(), reads or " RETURNING " in sql, not reads


def _location(given: Mapping[str, Any]) -> str:
    """The address without its secrets."""
    told = {key: str(given.get(key) or "") for key in ("user", "host", "port", "dbname", "hostaddr", "service")}
    user, port = (f"{told['user']}@" if told["user"] else ""), (f":{told['port']}" if told["port"] else "")
    beside = ("hostaddr", "service") if not told["host"].startswith("/") else ("host", "hostaddr", "service")
    query = "&".join(f"{key}={told[key]}" for key in beside if told[key])
    host = "" if "host" in beside else told["host"]
    return f"postgresql://{user}{host}{port}/{told['dbname']}" + (f"?{query}" if query else "")
