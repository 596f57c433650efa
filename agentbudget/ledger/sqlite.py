"""The ledger's rows in one SQLite file: the default, safe for threads, processes and kill -9.

Write-ahead log with ``synchronous=NORMAL``: a transaction survives the death of the process; the last ones
may be lost if the machine itself loses power, and never half of one.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Generator
from contextlib import closing, contextmanager, suppress
from itertools import chain, count
from pathlib import Path
from types import TracebackType
from typing import Final, Literal

from agentbudget.errors import InvalidArgument, Mistake, SchemaMismatch, StoreBusy, StoreUnavailable
from agentbudget.ledger.forks import watch
from agentbudget.ledger.interrupts import owned, refuse_inside
from agentbudget.ledger.schema import VERSION, Dialect, migrate, tables
from agentbudget.ledger.sql import Cursor, Row, SqlTransaction
from agentbudget.ledger.store import GENESIS

try:
    import fcntl
except ImportError:  # no advisory locks on this system: SQLite's own lock is right too, only less even
    fcntl = None

APPLICATION_ID: Final = 0x41474254
"""``AGBT``: marks the file as ours, so that a path to another program's database is refused."""

DIALECT: Final = Dialect(
    integer="INTEGER",
    boolean="INTEGER",
    text="TEXT",
    octets="BLOB",
    keyed="STRICT, WITHOUT ROWID",
    numbered="STRICT",
)
IMMUTABLE: Final = (
    "CREATE TRIGGER entries_are_immutable BEFORE UPDATE ON entries "
    "BEGIN SELECT RAISE(ABORT, 'entries are immutable'); END",
    "CREATE TRIGGER entries_stay BEFORE DELETE ON entries BEGIN SELECT RAISE(ABORT, 'entries are immutable'); END",
)
HEAD: Final = "SELECT seq, hash FROM entries ORDER BY seq DESC LIMIT 1"

BUSY_TIMEOUT_S: Final = 10.0
CHECKPOINT_PAGES: Final = 4000
"""The write-ahead log is copied into the file every 16 MB."""


class SqliteStore:
    """A `Store` in the file at `path`, made with its folders if it is not there.

    One connection writes, another reads, so that a long look at the journal keeps no payment waiting. A process that
    was forked from this one opens its own.
    """

    interruptible = False

    def __init__(self, path: Path, *, busy_timeout_s: float = BUSY_TIMEOUT_S) -> None:
        self._path = path
        self._writer = _Connection(path, busy_timeout_s, writes=True)
        self._reader = _Connection(path, busy_timeout_s, writes=False)
        try:
            refuse_others(path)
            path.parent.mkdir(parents=True, exist_ok=True)
            self._writer.connect()
            if not self._writer.is_current():
                migrate(self.location, self._writer.exclusively)
            self._reader.connect()
        except (OSError, sqlite3.Error) as error:
            self.close()
            raise fault(path, error, "open") from error
        except BaseException:
            self.close()
            raise
        watch(self)

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

    def before_fork(self) -> None:
        self._writer.rest()
        self._reader.rest()

    def after_fork(self, *, child: bool) -> None:
        self._writer.after_fork(child=child)
        self._reader.after_fork(child=child)


class Turn:
    """Whose turn it is to write, among processes: an advisory lock beside the file.

    SQLite's busy handler sleeps and tries again, so that under many writers some wait for seconds; whoever waits for
    this lock asks again within a millisecond. SQLite's own lock still guards the file.
    """

    def __init__(self, path: Path) -> None:
        self._file = None if fcntl is None else path.with_name(f"{path.name}-turn").open("ab", buffering=0)

    def take(self, deadline: float) -> None:
        """Wait for it until `deadline` on the monotonic clock. Raises ``sqlite3.OperationalError``."""
        if fcntl is None or self._file is None:
            return
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._wait(deadline)

    def _wait(self, deadline: float) -> None:
        assert fcntl is not None
        assert self._file is not None
        # Asked again and again: to wait in the kernel would be to wait without end for a writer that was stopped.
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


_inherited: Final[list[sqlite3.Connection]] = []
"""What a fork left in this process. SQLite takes what they had locked for locked, so that they have to go before
this process opens the same file; not sooner, since most children open nothing."""


class _Connection:
    """One connection, entered for one transaction at a time."""

    def __init__(self, path: Path, busy_timeout_s: float, *, writes: bool) -> None:
        self._path = path
        self._timeout_s = busy_timeout_s
        self._writes = writes
        self._begin: Literal["BEGIN IMMEDIATE", "BEGIN"] = "BEGIN IMMEDIATE" if writes else "BEGIN"
        self._lock = threading.RLock()
        self._inside = False
        self._resting = False
        self._closed = ""
        """Why it can be used no more."""
        self._turn: Turn | None = None
        self._db: sqlite3.Connection | None = None
        self._tx = SqlTransaction(_nothing)
        self._version = -1

    def connect(self) -> None:
        """Open the file."""
        while _inherited:
            _inherited.pop().close()
        if self._writes:
            self._turn = Turn(self._path)
        db = sqlite3.connect(self._path, timeout=self._timeout_s, isolation_level=None, check_same_thread=False)
        self._db = db
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = NORMAL")
        db.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")
        self._tx = SqlTransaction(db.execute)
        self._version = -1

    def __enter__(self) -> SqlTransaction:
        deadline = time.monotonic() + self._timeout_s
        try:
            # Who reads may take long, and takes no turn from anybody.
            if not self._lock.acquire(timeout=self._timeout_s if self._writes else -1):
                raise sqlite3.OperationalError("database is locked")
            if self._inside:
                self._interrupted()
            self._inside = True
            self._start(deadline)
        except Mistake:
            raise  # the transaction around goes on
        except BaseException as error:
            if owned(self._lock):
                self.__exit__(type(error), None, None)
            if isinstance(error, (OSError, sqlite3.Error)):
                raise fault(self._path, error, "lock") from error
            raise
        return self._tx

    def _start(self, deadline: float) -> None:
        if self._closed:
            raise StoreUnavailable(
                f"the ledger {self._path} {self._closed}; open it again with Ledger.open", location=str(self._path)
            )
        if self._db is None:
            self.connect()
        db = self._connected()
        if self._turn is not None:
            self._turn.take(deadline)
        if db.in_transaction:
            self._roll_back()
        db.execute(self._begin)
        # SQLite's own count of what other connections wrote: where it stands still, so does the last entry.
        (version,) = db.execute("PRAGMA data_version").fetchone()
        if version != self._version or not self._tx.fresh:
            row = db.execute(HEAD).fetchone()
            if row is None:
                self._tx.begin(0, GENESIS)
            else:
                self._tx.begin(row[0], row[1])
            self._version = version

    def _connected(self) -> sqlite3.Connection:
        assert self._db is not None
        return self._db

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        done = False
        try:
            if kind is None:
                self._connected().execute("COMMIT")
                done = True
        except sqlite3.Error as failed:
            raise fault(self._path, failed, "write") from failed
        finally:
            try:
                if not done:
                    self._roll_back()
                self._give_turn()
            finally:
                self._inside = False
                self._lock.release()
        if isinstance(error, sqlite3.Error):
            raise fault(self._path, error, "write") from error
        if isinstance(error, UnicodeEncodeError):
            raise InvalidArgument(
                f"ids and names are text without lone surrogates: {error}", argument="id", value=error.object
            ) from error

    def _give_turn(self) -> None:
        if self._turn is not None and not self._closed:
            try:
                self._turn.give()
            except BaseException:
                self._turn.give()  # an interrupt must not keep other processes out
                raise

    def _roll_back(self) -> None:
        self._tx.forget()
        # A full disk may already have rolled back; what raised is the error to report.
        with suppress(sqlite3.Error):
            if self._db is not None and self._db.in_transaction:
                self._db.execute("ROLLBACK")

    def _interrupted(self) -> None:
        """This thread has the lock already: by an interrupt in its last transaction, or since it is still in it."""
        self._lock.release()  # it was taken twice
        refuse_inside(self._tx)
        self._roll_back()

    def is_current(self) -> bool:
        """Whether the file is this version's: then nobody who writes keeps it from being opened."""
        return _Tables(self._connected(), self._path).version() == VERSION

    @contextmanager
    def exclusively(self) -> Generator[_Tables]:
        """The file's tables, while nobody else writes to it."""
        db = self._connected()
        db.execute("BEGIN IMMEDIATE")
        try:
            yield _Tables(db, self._path)
        except BaseException:
            db.execute("ROLLBACK")
            raise
        db.execute("COMMIT")

    def close(self) -> None:
        """Close it for good, once nobody is inside."""
        with self._lock:
            self._closed = self._closed or "was closed"
            if self._db is not None:
                self._db.close()
            if self._turn is not None:
                self._turn.close()

    def rest(self) -> None:
        """Before a fork: let whoever is inside finish, so that the child inherits nothing half done."""
        self._resting = self._lock.acquire(timeout=self._timeout_s)

    def after_fork(self, *, child: bool) -> None:
        """In the parent, go on; in a child, forget the parent's connection, and open one when it is needed."""
        if not child:
            if self._resting:
                self._lock.release()
            return
        self._lock, self._inside = threading.RLock(), False
        if not self._resting:
            self._closed = "was in the middle of a transaction when this process was forked"
        if self._turn is not None:
            self._turn.close()  # the parent's lock, should it hold it, stays its own
        if self._db is not None:
            _inherited.append(self._db)
        self._turn, self._db, self._tx = None, None, SqlTransaction(_nothing)


def _nothing(sql: str, values: Row) -> Cursor:
    raise AssertionError("a transaction without a connection")


class _Tables:
    """The tables of a file, for `migrate`."""

    def __init__(self, db: sqlite3.Connection, path: Path) -> None:
        self._db = db
        self._path = path
        self.steps = {1: self._from_schema_1}

    def version(self) -> int | None:
        return version_of(self._db, self._path)

    def create(self) -> None:
        for statement in (*tables(DIALECT), *IMMUTABLE):
            self._db.execute(statement)
        self._db.execute(f"PRAGMA application_id = {APPLICATION_ID}")

    def set_version(self, version: int) -> None:
        self._db.execute(f"PRAGMA user_version = {version}")

    def _from_schema_1(self) -> None:
        from agentbudget.ledger import schema1  # once in the life of a file

        schema1.set_aside(self._db)
        self.create()
        schema1.bring_over(self._db, str(self._path))
        _keep(self._path, "v1.bak")


def _keep(path: Path, suffix: str) -> None:
    """Copy the file, as it was when the transaction that holds it began, beside it. An older copy stays."""
    names = (path.with_name(f"{path.name}.{suffix}{n}") for n in chain([""], map(".{}".format, count(2))))
    kept = next(name for name in names if not name.exists())
    partial = kept.with_name(f"{kept.name}.partial")
    with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(partial)) as target:
        source.backup(target)
    partial.replace(kept)


def refuse_others(path: Path) -> None:
    """Raise `SchemaMismatch` for a file of others before it is touched: our journal mode alone would change it."""
    if path.is_dir():
        raise IsADirectoryError("it is a directory")
    if not path.exists():
        return
    for mode in ("ro", "rw"):
        try:
            with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode={mode}", uri=True)) as db:
                version_of(db, path)
            return
        except sqlite3.OperationalError as error:
            # What a crash left half written must be undone before it can be read, as SQLite does for any reader.
            if mode == "rw" or not error.sqlite_errorname.startswith("SQLITE_READONLY"):
                raise


def version_of(db: sqlite3.Connection, path: Path) -> int | None:
    """The version of the ledger's tables, None for an empty file. Raises `SchemaMismatch` if they are another's."""
    (tables,) = db.execute("SELECT count(*) FROM sqlite_master").fetchone()
    (application,) = db.execute("PRAGMA application_id").fetchone()
    (version,) = db.execute("PRAGMA user_version").fetchone()
    if tables == 0:
        return None
    if application != APPLICATION_ID:
        raise SchemaMismatch(
            f"{path} is another program's database; name another path for the ledger", location=str(path)
        )
    return version


def fault(path: Path, error: Exception, verb: str) -> StoreUnavailable | StoreBusy | SchemaMismatch:
    """What SQLite or the file system said, as an error of the tree."""
    text = str(error)
    if isinstance(error, sqlite3.OperationalError) and ("locked" in text or "busy" in text):
        return StoreBusy(
            f"another process kept the ledger {path} locked; nothing was admitted, try again when it is done",
            location=str(path),
        )
    if isinstance(error, sqlite3.DatabaseError) and "not a database" in text:
        return SchemaMismatch(f"{path} is not an SQLite database; name another path for the ledger", location=str(path))
    return StoreUnavailable(f"cannot {verb} the ledger {path}: {text}; nothing was admitted", location=str(path))
