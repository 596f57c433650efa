"""The ledger's rows in one SQLite file: the default, safe for threads, processes and kill -9.

Write-ahead log with ``synchronous=NORMAL``: a transaction survives the death of the process; the last ones
may be lost if the machine itself loses power, and never half of one.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Final, Literal

from agentbudget.errors import SchemaMismatch, StoreBusy, StoreUnavailable
from agentbudget.ledger.sql import SqlTransaction
from agentbudget.ledger.store import GENESIS

try:
    import fcntl
except ImportError:  # no advisory locks on this system: SQLite's own lock is right too, only less even
    fcntl = None

SCHEMA_VERSION: Final = 2
APPLICATION_ID: Final = 0x41474254
"""``AGBT``: marks the file as ours, so that a path to another program's database is refused."""

SCHEMA: Final = (
    """CREATE TABLE accounts (
      name TEXT PRIMARY KEY, parent TEXT,
      limit_usd INTEGER, limit_tokens INTEGER, limit_calls INTEGER, windows TEXT NOT NULL,
      posted_usd INTEGER NOT NULL, posted_tokens INTEGER NOT NULL, posted_calls INTEGER NOT NULL,
      held_usd INTEGER NOT NULL, held_tokens INTEGER NOT NULL, held_calls INTEGER NOT NULL,
      frozen TEXT
    ) STRICT, WITHOUT ROWID""",
    """CREATE TABLE periods (
      account TEXT NOT NULL, time_window TEXT NOT NULL, start_ns INTEGER NOT NULL,
      held_usd INTEGER NOT NULL, held_tokens INTEGER NOT NULL, held_calls INTEGER NOT NULL,
      posted_usd INTEGER NOT NULL, posted_tokens INTEGER NOT NULL, posted_calls INTEGER NOT NULL,
      PRIMARY KEY (account, time_window, start_ns)
    ) STRICT, WITHOUT ROWID""",
    """CREATE TABLE holds (
      number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, parent TEXT,
      usd INTEGER NOT NULL, tokens INTEGER NOT NULL, calls INTEGER NOT NULL,
      state TEXT NOT NULL, sent INTEGER NOT NULL, owner TEXT NOT NULL, tag TEXT,
      reserved_usd INTEGER NOT NULL DEFAULT 0, reserved_tokens INTEGER NOT NULL DEFAULT 0,
      reserved_calls INTEGER NOT NULL DEFAULT 0,
      spent_usd INTEGER NOT NULL DEFAULT 0, spent_tokens INTEGER NOT NULL DEFAULT 0,
      spent_calls INTEGER NOT NULL DEFAULT 0, children INTEGER NOT NULL DEFAULT 0,
      settled_usd INTEGER, settled_tokens INTEGER, settled_calls INTEGER,
      presumed INTEGER NOT NULL DEFAULT 0, closed INTEGER
    ) STRICT""",
    "CREATE INDEX holds_parent ON holds (parent) WHERE parent IS NOT NULL",
    "CREATE INDEX holds_open ON holds (number) WHERE state = 'open'",
    "CREATE INDEX holds_tag ON holds (tag, closed) WHERE tag IS NOT NULL AND state = 'settled'",
    """CREATE TABLE entries (
      seq INTEGER PRIMARY KEY, at_ns INTEGER NOT NULL, kind TEXT NOT NULL, subject TEXT NOT NULL, targets TEXT NOT NULL,
      held_usd INTEGER NOT NULL, held_tokens INTEGER NOT NULL, held_calls INTEGER NOT NULL,
      posted_usd INTEGER NOT NULL, posted_tokens INTEGER NOT NULL, posted_calls INTEGER NOT NULL,
      detail TEXT NOT NULL, hash BLOB NOT NULL
    ) STRICT""",
    "CREATE TRIGGER entries_are_immutable BEFORE UPDATE ON entries "
    "BEGIN SELECT RAISE(ABORT, 'entries are immutable'); END",
    "CREATE TRIGGER entries_stay BEFORE DELETE ON entries BEGIN SELECT RAISE(ABORT, 'entries are immutable'); END",
    "CREATE TABLE marks (name TEXT PRIMARY KEY, seq INTEGER NOT NULL) STRICT, WITHOUT ROWID",
    "CREATE TABLE leases (owner TEXT PRIMARY KEY, until_ns INTEGER NOT NULL) STRICT, WITHOUT ROWID",
)
HEAD: Final = "SELECT seq, hash FROM entries ORDER BY seq DESC LIMIT 1"

BUSY_TIMEOUT_S: Final = 10.0
CHECKPOINT_PAGES: Final = 4000
"""The write-ahead log is copied into the file every 16 MB."""


class SqliteStore:
    """A `Store` in the file at `path`, made with its folders if it is not there.

    One connection writes, another reads, so that a long look at the journal keeps no payment waiting.
    """

    def __init__(self, path: Path, *, busy_timeout_s: float = BUSY_TIMEOUT_S) -> None:
        self._path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._writer = _Connection(path, busy_timeout_s, Turn(path, busy_timeout_s))
            self._writer.migrate()
            self._reader = _Connection(path, busy_timeout_s, None)
        except (OSError, sqlite3.Error) as error:
            raise fault(path, error, "open") from error

    @property
    def location(self) -> str:
        return str(self._path)

    def write(self) -> _Connection:
        return self._writer

    def read(self) -> _Connection:
        return self._reader

    def close(self) -> None:
        self._reader.close()
        self._writer.close()


class Turn:
    """Whose turn it is to write, among processes: an advisory lock beside the file.

    SQLite's busy handler sleeps and tries again, so that under many writers some wait for seconds; the operating
    system wakes whoever waits for this lock as soon as it is free. SQLite's own lock still guards the file.
    """

    def __init__(self, path: Path, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._file = None if fcntl is None else path.with_name(f"{path.name}-turn").open("ab", buffering=0)

    def take(self) -> None:
        if fcntl is None or self._file is None:
            return
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._wait()

    def _wait(self) -> None:
        assert fcntl is not None
        assert self._file is not None
        # Asked again and again: to wait in the kernel would be to wait without end for a writer that was stopped.
        deadline = time.monotonic() + self._timeout_s
        pause = 50e-6
        while True:
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise sqlite3.OperationalError("database is locked") from None
                time.sleep(pause)
                pause = min(pause * 1.2, 1e-3)

    def give(self) -> None:
        if fcntl is not None and self._file is not None:
            fcntl.flock(self._file, fcntl.LOCK_UN)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


class _Connection:
    """One connection, entered for one transaction at a time."""

    def __init__(self, path: Path, busy_timeout_s: float, turn: Turn | None) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._turn = turn
        self._begin: Literal["BEGIN IMMEDIATE", "BEGIN"] = "BEGIN" if turn is None else "BEGIN IMMEDIATE"
        self._db = sqlite3.connect(path, timeout=busy_timeout_s, isolation_level=None, check_same_thread=False)
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = NORMAL")
        self._db.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")
        self._tx = SqlTransaction(self._db.execute)
        self._version = -1

    def __enter__(self) -> SqlTransaction:
        self._lock.acquire()
        try:
            self._start()
        except BaseException as error:
            self._stop()
            if isinstance(error, sqlite3.Error):
                raise fault(self._path, error, "lock") from error
            raise
        return self._tx

    def _start(self) -> None:
        if self._turn is not None:
            self._turn.take()
        self._db.execute(self._begin)
        # SQLite's own count of what other connections wrote: where it stands still, so does the last entry.
        (version,) = self._db.execute("PRAGMA data_version").fetchone()
        if version != self._version or not self._tx.fresh:
            row = self._db.execute(HEAD).fetchone()
            if row is None:
                self._tx.begin(0, GENESIS)
            else:
                self._tx.begin(row[0], row[1])
            self._version = version

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            try:
                self._db.execute("COMMIT")
            except BaseException as failed:
                self._stop()
                if isinstance(failed, sqlite3.Error):
                    raise fault(self._path, failed, "write") from failed
                raise
            if self._turn is not None:
                self._turn.give()
            self._lock.release()
            return
        self._stop()
        if isinstance(error, sqlite3.Error):
            raise fault(self._path, error, "write") from error

    def _stop(self) -> None:
        """Undo, and let others in."""
        self._tx.forget()
        # A full disk may already have rolled back; what raised is the error to report.
        with suppress(sqlite3.Error):
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
        if self._turn is not None:
            self._turn.give()
        self._lock.release()

    def migrate(self) -> None:
        """Make the tables in a new file; refuse a file of another program or of a newer version."""
        self._db.execute("BEGIN IMMEDIATE")
        try:
            (tables,) = self._db.execute("SELECT count(*) FROM sqlite_master").fetchone()
            (application,) = self._db.execute("PRAGMA application_id").fetchone()
            (version,) = self._db.execute("PRAGMA user_version").fetchone()
            if tables == 0:
                for statement in SCHEMA:
                    self._db.execute(statement)
                self._db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
                self._db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
            elif application != APPLICATION_ID:
                raise SchemaMismatch(f"{self._path} is another program's database; name another path for the ledger")
            elif version != SCHEMA_VERSION:
                raise SchemaMismatch(
                    f"the ledger {self._path} has schema {version}, this agentbudget reads {SCHEMA_VERSION}; "
                    "use the version that wrote it, or name another path"
                )
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    def close(self) -> None:
        with self._lock:
            self._db.close()
            if self._turn is not None:
                self._turn.close()


def fault(path: Path, error: Exception, verb: str) -> StoreUnavailable | StoreBusy | SchemaMismatch:
    """What SQLite or the file system said, as an error of the tree."""
    text = str(error)
    if isinstance(error, sqlite3.OperationalError) and ("locked" in text or "busy" in text):
        return StoreBusy(
            f"another process kept the ledger {path} locked; nothing was admitted, try again when it is done"
        )
    if isinstance(error, sqlite3.DatabaseError) and "not a database" in text:
        return SchemaMismatch(f"{path} is not an SQLite database; name another path for the ledger")
    return StoreUnavailable(f"cannot {verb} the ledger {path}: {text}; nothing was admitted")
