"""The ledger's rows in one SQLite file: the default, safe for threads, processes and kill -9.

Write-ahead log with ``synchronous=NORMAL``: a transaction survives the death of the process; the last ones
may be lost if the machine itself loses power, and never half of one.
"""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from collections.abc import Generator, Iterable
from contextlib import closing, contextmanager, suppress
from itertools import chain, count
from pathlib import Path
from types import TracebackType
from typing import Final

from agentbudget.busy import FAULTS, is_busy, patiently, told, use_wal
from agentbudget.errors import (
    AgentBudgetError,
    InvalidArgument,
    Mistake,
    SchemaMismatch,
    StoreBusy,
    StoreInterrupted,
    StoreUnavailable,
)
from agentbudget.forks import watch
from agentbudget.ledger.interrupts import owned, refuse_inside
from agentbudget.ledger.records import Account
from agentbudget.ledger.schema import Dialect, migrate, tables
from agentbudget.ledger.sql import ADD_ENTRY, Cursor, Execute, Row
from agentbudget.ledger.tail import APPLIED, CLAIM, EXTRA, HEAD, LAST_SEQ, LIGHT, NEWS, NoOwner, TailTransaction
from agentbudget.ledger.turn import Turn

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
VERSION: Final = 3
"""Schema 3 is the shared tables and what `tail.EXTRA` adds."""
UNREADABLE: Final = (Mistake, ValueError, LookupError, TypeError, ArithmeticError, AttributeError)
BUSY_TIMEOUT_S: Final = 10.0
PAUSE_S: Final = 2e-4
"""How long a writer waits for a lock that no turn keeps: SQLite's, in the hands of another program."""
LOOK_S: Final = 1.0
"""How often it is looked whether the file still stands where it was opened."""
PATIENCE: Final = 32
"""For so many transactions without any news, others are still taken to be about."""
CHECKPOINT: Final = 4096
"""Entries after which the write-ahead log is copied into the file, by whoever writes the last of them: once its turn
is over, so that nobody waits for that."""
PAGE_BYTES: Final = 2048
"""Of a new file: half of what SQLite takes by itself. Commits write whole pages, and an entry has 100 to 600 bytes."""
CHECKPOINT_PAGES: Final = 32_000
"""At 64 MB SQLite copies it by itself."""


class SqliteStore:
    """A `Store` in the file at `path`, made with its folders if it is not there.

    One connection writes, another reads, so that a long look at the journal keeps no payment waiting. A process that
    was forked from this one opens its own.
    """

    interruptible = True

    def __init__(self, path: Path, *, busy_timeout_s: float = BUSY_TIMEOUT_S) -> None:
        self._path = path = path.absolute()  # a forked process opens it anew, wherever it has gone meanwhile
        self._writer = _Writer(path, busy_timeout_s)
        self._reader = _Reader(path, busy_timeout_s)
        try:
            refuse_others(path)
            path.parent.mkdir(parents=True, exist_ok=True)
            self._writer.connect()
            if not self._writer.is_current():
                self._writer.bring_here()
            self._reader.connect()
        except (OSError, *FAULTS) as error:
            self.close()
            raise fault(path, error, "open") from error
        except BaseException:
            self.close()
            raise
        watch(self)

    @property
    def location(self) -> str:
        return str(self._path)

    def write(self) -> _Writer:
        return self._writer

    def read(self) -> _Reader:
        return self._reader

    def glance(self, account: str) -> Account | None:
        return self._writer.known(account)

    def close(self) -> None:
        self._reader.close()
        self._writer.close()

    def before_fork(self) -> None:
        self._writer.rest()
        self._reader.rest()

    def after_fork(self, *, child: bool) -> None:
        self._writer.after_fork(child=child)
        self._reader.after_fork(child=child)


_inherited: Final[list[sqlite3.Connection]] = []
"""What a fork left in this process. SQLite takes what they had locked for locked, so that they have to go before
this process opens the same file; not sooner, since most children open nothing."""


class _Connection:
    """One connection, entered for one transaction at a time."""

    def __init__(self, path: Path, busy_timeout_s: float) -> None:
        self._path = path
        self._timeout_s = busy_timeout_s
        self._lock = threading.RLock()
        self._inside = False
        self._resting = False
        self._closed = ""
        """Why it can be used no more."""
        self._db: sqlite3.Connection | None = None
        self._tx = _nowhere()
        self._file: tuple[int, int] | None = None
        """Which file it is to the system, whatever its name."""
        self._look_due = 0.0

    def connect(self) -> None:
        """Open the file."""
        while _inherited:
            _inherited.pop().close()
        self._db = sqlite3.connect(self._path, timeout=self._timeout_s, isolation_level=None, check_same_thread=False)
        self._db.execute(f"PRAGMA page_size = {PAGE_BYTES}")  # a file that is there keeps its own
        use_wal(self._db, timeout_s=self._timeout_s)
        self._db.execute("PRAGMA synchronous = NORMAL")
        self._db.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")
        self._file = _file_at(self._path)
        self._tx = TailTransaction(self._db, self._execute)

    def _look(self) -> None:
        """Write no more to a file that has lost its name: who opens the ledger now would know nothing of it, and spend
        its budget once more."""
        self._look_due = time.monotonic() + LOOK_S
        if self._db is not None and not self._closed and _file_at(self._path) != self._file:
            self._closed = "was moved, deleted or replaced while it was open, and what is known here is not in it"
            self._tx.forget()
        self._usable()

    def _execute(self, sql: str, values: Row = ()) -> Cursor:
        """What the transaction reads with."""
        raise NotImplementedError

    def _usable(self) -> sqlite3.Connection:
        if self._closed:
            raise StoreUnavailable(
                f"the ledger {self._path} {self._closed}; open it again with Ledger.open", location=str(self._path)
            )
        if self._db is None:
            self.connect()
        return self._connected()

    def _connected(self) -> sqlite3.Connection:
        assert self._db is not None
        return self._db

    def _faulty(self, error: BaseException | None) -> Exception | None:
        """What SQLite or Python said of what is written, as an error of the tree; None if it is one, or another's."""
        if isinstance(error, sqlite3.Error):
            return fault(self._path, error, "write")
        if isinstance(error, (json.JSONDecodeError, UnicodeDecodeError, NoOwner)):
            return unreadable(self._path, error)
        if isinstance(error, UnicodeEncodeError):
            return InvalidArgument(
                f"ids and names are text without lone surrogates: {error}", argument="id", value=error.object
            )
        return None

    def _roll_back(self) -> None:
        # A full disk may already have rolled back; what raised is the error to report.
        with suppress(sqlite3.Error):
            if self._db is not None and self._db.in_transaction:
                self._db.execute("ROLLBACK")

    def _interrupted(self) -> None:
        """This thread has the lock already: by an interrupt in its last transaction, or since it is still in it."""
        self._lock.release()  # it was taken twice
        refuse_inside(self._tx)
        self._tx.forget()
        self._roll_back()
        self._unlock()

    def _unlock(self) -> None:
        """Let go of what a transaction keeps from others."""

    def close(self) -> None:
        """Close it for good, once nobody is inside."""
        with self._lock:
            self._closed = self._closed or "was closed"
            if self._db is not None:
                self._db.close()

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
        if self._db is not None:
            _inherited.append(self._db)
        self._db, self._tx = None, _nowhere()


class _Reader(_Connection):
    """Sees one moment of the file, and on top of it what its tables do not have yet. It never writes."""

    def __init__(self, path: Path, busy_timeout_s: float) -> None:
        super().__init__(path, busy_timeout_s)
        self._trouble: SchemaMismatch | None = None
        """Why the end of the journal cannot be followed."""
        self._version = -1
        """SQLite's own count of what other connections wrote, as it was when the journal was last looked at."""

    def connect(self) -> None:
        """Open the file."""
        super().connect()
        self._version = -1

    def _execute(self, sql: str, values: Row = ()) -> Cursor:
        if self._trouble is not None:
            raise self._trouble
        return self._connected().execute(sql, values)

    def __enter__(self) -> TailTransaction:
        try:
            self._lock.acquire()  # who reads may take long, and takes no turn from anybody
            if self._inside:
                self._interrupted()
            self._inside = True
            if time.monotonic() >= self._look_due:
                self._look()
            db = self._usable()
            if db.in_transaction:
                self._roll_back()
            db.execute("BEGIN")
            (version,) = db.execute("PRAGMA data_version").fetchone()
            if version != self._version or self._trouble is not None or not self._tx.fresh:
                self._version, self._trouble = -1, None
                if self._tx.changed:  # an interrupt came while it learned
                    self._tx.forget()
                self._learn(db)
                self._version = version
        except Mistake:
            raise  # the transaction around goes on
        except BaseException as error:
            if owned(self._lock):
                self.__exit__(type(error), None, None)
            if isinstance(error, (OSError, *FAULTS)):
                raise fault(self._path, error, "lock") from error
            raise
        return self._tx

    def _learn(self, db: sqlite3.Connection) -> None:
        try:
            self._tx.learn(db.execute(HEAD).fetchone())
        except UNREADABLE as error:
            self._tx.forget()
            self._trouble = unreadable(self._path, error)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._roll_back()
        finally:
            self._inside = False
            self._lock.release()
        faulty = self._faulty(error)
        if faulty is not None:
            raise faulty from error


class _NeedsTables(Exception):
    """What others wrote is about something that this process does not know."""


class _Writer(_Connection):
    """Writes, with the file to itself or in the hope of it.

    Where nobody else has written of late, an operation is worked out from what this process knows, and written as one
    statement: its entry, whose number is taken if somebody was first. Then, and where others are about, it is worked
    out with the file locked.
    """

    def __init__(self, path: Path, busy_timeout_s: float) -> None:
        super().__init__(path, busy_timeout_s)
        self._patience_s = busy_timeout_s
        """How long it waits for other processes."""
        self._turn: Turn | None = None
        self._has_turn = self._locked = False
        self._following = False
        self._due = False
        """Whether the log is to be copied into the file."""
        self._rivals = 0
        """For how many transactions others are taken to be about."""
        self._write: Execute = _NoDatabase().execute
        """For single statements: one cursor serves all."""

    def connect(self) -> None:
        """Open the file."""
        self._turn = self._turn or Turn(self._path)
        super().connect()
        self._connected().execute("PRAGMA busy_timeout = 0")  # whoever waits, waits in `_begin`
        self._write = self._connected().cursor().execute
        self._tables = _Tables(self._connected(), self._path)

    def known(self, account: str) -> Account | None:
        """The account as the last transaction left it, if it still is in mind."""
        return self._tx.known(account)

    def _execute(self, sql: str, values: Row = ()) -> Cursor:
        if not self._locked:
            if self._following:
                raise _NeedsTables
            self._lock_file(late=True)
        return self._connected().execute(sql, values)

    def __enter__(self) -> TailTransaction:
        tx = self._tx
        try:
            if not (self._lock.acquire(False) or self._lock.acquire(timeout=self._timeout_s)):
                raise sqlite3.OperationalError("database is locked")
            if self._inside:
                self._interrupted()
            self._inside = True
            if tx.changed or self._locked or self._has_turn:
                self._mend()
            if time.monotonic() >= self._look_due:
                self._look()
            if self._rivals or tx.applied < 0:
                tx = self._begin_beside_others()
            else:
                tx.sure = False
        except Mistake:
            raise  # the transaction around goes on
        except BaseException as error:
            if owned(self._lock):
                self.__exit__(type(error), None, None)
            if isinstance(error, (OSError, *FAULTS)):
                raise fault(self._path, error, "lock") from error
            raise
        return tx

    def _begin_beside_others(self) -> TailTransaction:
        self._usable()
        first = self._take_turn()
        if self._tx.applied < 0:
            self._lock_file()
        elif first:
            self._follow()
        self._tx.sure = self._locked
        return self._tx

    def _follow(self) -> None:
        """Learn what others wrote in their turns."""
        news = self._asked(NEWS, (self._tx.seq,))
        if not news:
            self._rivals -= 1  # also then the tables may have followed what was read ahead
        elif not self._learn_from(news):
            self._lock_file()  # the tables followed
            return
        if self._tx.applied < 0:
            self._lock_file()
        elif self._tx.is_long:
            [(applied,)] = self._asked(APPLIED)
            if applied <= self._tx.seq:
                self._tx.rebase(applied)  # another may have brought the tables up: then it need not be done again

    def _learn_from(self, news: list[Row]) -> bool:
        """Do again what entries tell; False, and nothing was done, where the tables followed one of them."""
        self._rivals = PATIENCE
        if any(line[2] not in LIGHT for line in news):
            return False
        self._following = True
        try:
            self._tx.follow(news)
        except _NeedsTables:
            self._tx.forget()
        finally:
            self._following = False
        return True

    def _take_turn(self) -> bool:
        """Wait for the turn; False if nobody else had it since this process did."""
        if self._turn is None or self._has_turn:
            return True
        self._has_turn = True  # before it is so: an interrupt may come between
        return self._turn.take(time.monotonic() + self._patience_s, self._read_ahead)

    def _read_ahead(self) -> None:
        """Learn what others wrote so far, so that less of it is left for when this one keeps them waiting."""
        if self._tx.applied >= 0 and not self._tx.changed:
            self._learn_from(self._asked(NEWS, (self._tx.seq,)))

    def _lock_file(self, *, late: bool = False) -> None:
        """Keep others from writing until the end. ``late`` is in the middle of an operation, which may then have seen
        what is no longer so."""
        db = self._connected()
        self._take_turn()
        if db.in_transaction:
            self._roll_back()
        self._locked = self._tx.sure = True
        self._begin(db, time.monotonic() + self._patience_s)
        head = db.execute(HEAD).fetchone()
        known = self._tx.seq - len(self._tx.lines)
        if (head[1] or 0) == known and self._tx.rebase(head[0]):
            return
        if late:
            raise self._overtaken()
        self._rivals = PATIENCE
        self._learn(head)

    def _begin(self, db: sqlite3.Connection, deadline: float) -> None:
        while True:
            try:
                db.execute("BEGIN IMMEDIATE")
                return
            except sqlite3.OperationalError as error:
                if not is_busy(error) or time.monotonic() > deadline:
                    raise
                time.sleep(PAUSE_S)

    def _asked(self, sql: str, values: Row = ()) -> list[Row]:
        """What the file says, without a lock: there is a wait all the same while another process makes the index of
        the log anew, since its writer was killed."""
        db = self._connected()
        return patiently(lambda: db.execute(sql, values).fetchall(), timeout_s=self._patience_s)

    def _learn(self, head: Row) -> None:
        try:
            self._tx.learn(head)
        except UNREADABLE as error:
            self._tx.forget()
            raise unreadable(self._path, error) from error

    def _is_late(self) -> bool:
        """Whether others wrote since this transaction began, which did not lock the file."""
        [(seq,)] = self._asked(LAST_SEQ)
        return (seq or 0) != self._tx.seq - len(self._tx.lines)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        done = False
        try:
            if kind is None:
                if self._tx.light and not self._locked:
                    self._write_line()
                else:
                    self._finish()
                done = True
            elif not self._locked and isinstance(error, AgentBudgetError) and self._is_late():
                raise self._overtaken() from error  # it may have been refused for what is no longer so
        except FAULTS as failed:
            raise fault(self._path, failed, "write") from failed
        except NoOwner as failed:
            raise unreadable(self._path, failed) from failed
        finally:
            try:
                if not done:
                    self._abandon()
                if self._locked or self._has_turn:
                    self._unlock()
                if self._due:
                    self._checkpoint()
            finally:
                self._inside = False
                self._lock.release()
        if error is not None and (faulty := self._faulty(error)) is not None:
            raise faulty from error

    def _write_line(self) -> None:
        """Write the one entry, unless its number or the new hold's id is taken."""
        tx = self._tx
        claim, line, write = tx.claim, tx.lines[0], self._write
        try:
            if claim is None:
                write(ADD_ENTRY, line[:13])
            elif write(CLAIM, (*line, claim)).rowcount != 1:
                raise self._overtaken()
        except sqlite3.IntegrityError:
            raise self._overtaken() from None
        except sqlite3.OperationalError as error:
            if is_busy(error):
                raise self._overtaken() from None
            raise
        tx.start()
        self._due = line[0] % CHECKPOINT == 0

    def _checkpoint(self) -> None:
        self._due = False
        # What cannot be copied now, for a reader in the way or a full disk, stays in the log: the next one copies it.
        with suppress(sqlite3.Error):
            self._connected().execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()

    def _finish(self) -> None:
        """End a transaction that is more than one entry, or none, or has the file locked."""
        tx = self._tx
        if not self._locked:
            if not tx.changed:
                if self._is_late():
                    raise self._overtaken()
                return
            self._lock_file(late=True)
        if tx.claim_fails():
            raise self._overtaken()
        db = self._connected()
        behind = tx.behind
        if behind:
            self._due = any(line[0] % CHECKPOINT == 0 for line in tx.lines)
            tx.flush()
        db.execute("COMMIT")
        if behind:
            tx.flushed()

    def _mend(self) -> None:
        """Undo what is left of a transaction whose end an interrupt cut off."""
        self._tx.forget()
        self._roll_back()
        self._unlock()

    def _abandon(self) -> None:
        if self._tx.changed:
            self._tx.forget()
        self._roll_back()

    def _overtaken(self) -> StoreInterrupted:
        """What was worked out is no longer so: the operation is asked for again, and locks the file first."""
        self._rivals = PATIENCE
        self._tx.forget()
        return StoreInterrupted(
            f"another process wrote to the ledger {self._path} meanwhile; nothing was admitted, "
            "ask again with the same id",
            location=str(self._path),
        )

    def _unlock(self) -> None:
        self._locked = self._has_turn = False
        if self._turn is not None and not self._closed:
            try:
                self._turn.give()
            except BaseException:
                self._turn.give()  # an interrupt must not keep other processes out
                raise

    def is_current(self) -> bool:
        """Whether the file is this version's: then nobody who writes keeps it from being opened."""
        return patiently(self._tables.version, timeout_s=self._patience_s) == VERSION

    def bring_here(self) -> None:
        """Make the tables, or bring those of an older version to this one, which nobody else may have open then: a
        process of that version would go on writing by its own rules, and neither could read the ledger any more."""
        try:
            if self._is_older():
                self._connected().close()  # whoever wants the same waits for its turn, and has it closed as well
                self._take_turn()
                self.connect()
                if self._is_older():
                    with self._alone(), self._tables.kept():
                        migrate(str(self._path), self._exclusively, to=VERSION)
            migrate(str(self._path), self._exclusively, to=VERSION)
        finally:
            self._unlock()

    def _is_older(self) -> bool:
        return patiently(self._tables.version, timeout_s=self._patience_s) in self._tables.steps

    @contextmanager
    def _alone(self) -> Generator[None]:
        """Nobody else can open the file meanwhile. Raises `StoreBusy` if others have it open: then SQLite lets it keep
        no other log."""
        db = self._connected()
        db.execute("PRAGMA locking_mode = EXCLUSIVE")
        try:
            patiently(lambda: db.execute("PRAGMA journal_mode = DELETE"), timeout_s=self._patience_s)
        except sqlite3.OperationalError as error:
            if not is_busy(error):
                raise
            raise StoreBusy(
                f"the ledger {self._path} is of an older version, and another process has it open, which would go on "
                "writing to it as it was: end it, then open the ledger again",
                location=str(self._path),
            ) from error
        try:
            yield
        finally:
            db.execute("PRAGMA locking_mode = NORMAL")
            use_wal(db, timeout_s=self._patience_s)

    @contextmanager
    def _exclusively(self) -> Generator[_Tables]:
        """The file's tables, while nobody else writes to it."""
        db = self._connected()
        self._begin(db, time.monotonic() + self._patience_s)
        try:
            yield self._tables
        except BaseException:
            db.execute("ROLLBACK")
            raise
        db.execute("COMMIT")

    def close(self) -> None:
        """Bring the tables up to date if nobody is in the way, and close it for good, once nobody is inside."""
        with self._lock:
            if self._db is not None and not self._closed and self._tx.behind:
                self._patience_s = 0.0
                with suppress(AgentBudgetError), self:  # what is not brought up now is by whoever writes next
                    if not self._locked:
                        self._lock_file(late=True)
            self._write = _NoDatabase().execute  # its last statement would keep the file open
            super().close()
            self._tx.forget()
            if self._turn is not None:
                self._turn.close()

    def after_fork(self, *, child: bool) -> None:
        super().after_fork(child=child)
        if child:
            self._locked = self._has_turn = False
            self._write = _NoDatabase().execute
            if self._turn is not None:
                self._turn.close()  # the parent's lock, should it hold it, stays its own
            self._turn = None


def _file_at(path: Path) -> tuple[int, int] | None:
    """The file of this name, None if there is none."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def _nowhere() -> TailTransaction:
    return TailTransaction(_NoDatabase())


class _NoDatabase:
    def execute(self, sql: str, values: Row = (), /) -> Cursor:
        raise AssertionError("a transaction without a connection")

    def executemany(self, sql: str, values: Iterable[Row], /) -> object:
        raise AssertionError("a transaction without a connection")


def unreadable(path: Path, error: Exception) -> SchemaMismatch:
    """The error for a row, or a journal's end, that says what cannot have been."""
    return SchemaMismatch(
        f"the ledger {path} cannot be read ({type(error).__name__}: {error}): somebody changed it, or the disk; "
        "see what with `agentbudget ledger verify`",
        location=str(path),
    )


class _Tables:
    """The tables of a file, for `migrate`."""

    def __init__(self, db: sqlite3.Connection, path: Path) -> None:
        self._db = db
        self._path = path
        self.steps = {1: self._from_schema_1, 2: self._from_schema_2}

    def version(self) -> int | None:
        return version_of(self._db, self._path)

    def create(self) -> None:
        self._create_2()
        self._add_head()

    def _create_2(self) -> None:
        for statement in (*tables(DIALECT), *IMMUTABLE):
            self._db.execute(statement)
        self._db.execute(f"PRAGMA application_id = {APPLICATION_ID}")

    def set_version(self, version: int) -> None:
        self._db.execute(f"PRAGMA user_version = {version}")

    def _from_schema_1(self) -> None:
        from agentbudget.ledger import schema1  # once in the life of a file

        schema1.set_aside(self._db)
        self._create_2()
        schema1.bring_over(self._db, str(self._path))

    def _from_schema_2(self) -> None:
        self._add_head()

    @contextmanager
    def kept(self) -> Generator[None]:
        """A copy of the file, as it is before it is brought to another version, stays beside it if it is."""
        version = self.version()
        copy = _keep(self._db, self._path, f"v{version}.bak")
        try:
            yield
        except BaseException:
            if self.version() == version:
                copy.unlink()
            raise

    def _add_head(self) -> None:
        """Schema 3 says up to which entry the tables are: in schema 2 it was always the last."""
        for statement in EXTRA:
            self._db.execute(statement)


def _keep(db: sqlite3.Connection, path: Path, suffix: str) -> Path:
    """Copy the file beside it. An older copy stays."""
    names = (path.with_name(f"{path.name}.{suffix}{n}") for n in chain([""], map(".{}".format, count(2))))
    kept = next(name for name in names if not name.exists())
    partial = kept.with_name(f"{kept.name}.partial")
    with closing(sqlite3.connect(partial)) as target:
        db.backup(target)
    return partial.replace(kept)


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
    text = told(error)
    if isinstance(error, sqlite3.OperationalError) and ("locked" in text or "busy" in text):
        return StoreBusy(
            f"another process kept the ledger {path} locked; nothing was admitted, try again when it is done",
            location=str(path),
        )
    if isinstance(error, sqlite3.DatabaseError) and "not a database" in text:
        return SchemaMismatch(f"{path} is not an SQLite database; name another path for the ledger", location=str(path))
    return StoreUnavailable(f"cannot {verb} the ledger {path}: {text}; nothing was admitted", location=str(path))
