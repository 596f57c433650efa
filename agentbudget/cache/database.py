"""One SQLite file (or memory) of a cache: shared by threads, processes and forked children, its faults named."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Literal, Self

from agentbudget.busy import FAULTS, is_busy, told, use_wal
from agentbudget.errors import SchemaMismatch, StoreBusy, StoreUnavailable
from agentbudget.forks import watch

BUSY_TIMEOUT_S: Final = 2.0
"""How long a writer waits for another process's. A cache may fail: what it cannot keep is bought again."""

PAGE_BYTES: Final = 2048
"""Of a new file, half of what SQLite takes by itself: every commit writes whole pages, and an answer is small."""

CHECKPOINT_PAGES: Final = 8_000
"""Pages after which SQLite copies its log into the file. Whoever writes then waits for the disk, and to keep an answer
writes seven of them: at SQLite's own 1,000 pages one answer in 140 would wait."""


@dataclass(frozen=True, slots=True)
class Schema:
    """The tables of a file. ``name`` is what messages call it; ``application_id`` marks the file as ours.

    ``adopt`` is told, once the tables were made, to take over what an earlier version kept in others.
    """

    name: str
    application_id: int
    version: int
    tables: tuple[str, ...]
    adopt: Callable[[sqlite3.Connection], None] | None = None


class Database:
    """A connection to the file at `path`, made with its folder if it is not there; None: in memory.

    Raises `SchemaMismatch` for another program's file or a later version's, `StoreUnavailable` for one that cannot be
    used, `StoreBusy` where another process writes for too long.
    """

    def __init__(self, path: str | Path | None, schema: Schema) -> None:
        self.path = None if path is None else Path(path)
        self._schema = schema
        self._lock = threading.Lock()
        self._closed = False
        self._db = self._connect()
        self._inherited: sqlite3.Connection | None = None
        watch(self)

    @property
    def location(self) -> str:
        """Its path, for messages."""
        return "in memory" if self.path is None else str(self.path)

    def _connect(self) -> sqlite3.Connection:
        try:
            if self.path is not None:
                self.path.parent.mkdir(parents=True, exist_ok=True)
            db = sqlite3.connect(
                self.path or ":memory:", timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
            )
            try:
                self._prepare(db)
            except BaseException:
                db.close()
                raise
            return db
        except (OSError, *FAULTS) as error:
            if is_busy(error):
                raise self._busy(error) from error
            raise StoreUnavailable(
                f"cannot open the {self._schema.name} {self.location}: {told(error)}; if its disk has room, "
                "move the file away, and a new one is made",
                location=self.location,
            ) from error

    def _prepare(self, db: sqlite3.Connection) -> None:
        """Make the tables, or bring them to this version. Nothing is written before they are known to be ours."""
        db.execute(f"PRAGMA page_size = {PAGE_BYTES}")  # a file that is there keeps its own
        with _Transaction(db, "DEFERRED"):  # one moment of the file: another may be making it just now
            current = self._is_current(db)
        if not current:
            with _Transaction(db):
                if not self._is_current(db):  # by now: another process may have been first
                    for statement in self._schema.tables:
                        db.execute(statement)
                    if self._schema.adopt is not None:
                        self._schema.adopt(db)
                    db.execute(f"PRAGMA application_id = {self._schema.application_id}")
                    db.execute(f"PRAGMA user_version = {self._schema.version}")
        use_wal(db, timeout_s=BUSY_TIMEOUT_S)
        db.execute("PRAGMA synchronous = NORMAL")
        db.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")

    def _is_current(self, db: sqlite3.Connection) -> bool:
        """Whether the tables are these. Raises `SchemaMismatch` for those of a later version or another program."""
        schema, where = self._schema, self.location
        (application,) = db.execute("PRAGMA application_id").fetchone()
        (tables,) = db.execute("SELECT count(*) FROM sqlite_master").fetchone()
        (version,) = db.execute("PRAGMA user_version").fetchone()
        if tables and application != schema.application_id:
            raise SchemaMismatch(
                f"{where} is another program's database; name another path for the {schema.name}", location=where
            )
        if version > schema.version:
            raise SchemaMismatch(
                f"the {schema.name} {where} was written by a later version of agentbudget; "
                "upgrade, or name another home",
                location=where,
                found=version,
                expected=schema.version,
            )
        return version == schema.version

    def _using(self) -> _Block:
        """One thread at a time; what SQLite says is raised with the file's name."""
        return _Block(self._lock, self._usable, self._fault, writes=False)

    def _rows(self, sql: str, values: Sequence[object]) -> list[Any]:
        """What a query finds: as in a block of `_using`, without what such a block costs."""
        with self._lock:
            try:
                return self._usable().execute(sql, values).fetchall()
            except FAULTS as error:
                raise self._fault(error) from error

    def _writing(self) -> _Block:
        """All of it, or nothing."""
        return _Block(self._lock, self._usable, self._fault, writes=True)

    def _usable(self) -> sqlite3.Connection:
        if self._inherited is not None:  # it has to go before this process opens the same file
            inherited, self._inherited = self._inherited, None
            inherited.close()
            self._db = self._connect()
        return self._db

    def _fault(self, error: Exception) -> StoreUnavailable | StoreBusy:
        name, where = self._schema.name, self.location
        if self._closed:
            return StoreUnavailable(f"the {name} {where} is closed; open it again", location=where)
        if is_busy(error):
            return self._busy(error)
        return StoreUnavailable(f"the {name} {where} failed: {told(error)}", location=where)

    def _busy(self, error: Exception) -> StoreBusy:
        where = self.location
        return StoreBusy(
            f"the {self._schema.name} {where} is being written to by another process: {error}", location=where
        )

    def close(self) -> None:
        """Close the file. Closing it twice does no harm."""
        with self._lock:
            self._closed = True
            self._db.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def before_fork(self) -> None:
        """Come to rest, so that the child inherits nothing half done."""
        self._lock.acquire()

    def after_fork(self, *, child: bool) -> None:
        """The child opens the file for itself when it needs it; what is in memory is a copy of its own."""
        if not child:
            self._lock.release()
            return
        self._lock = threading.Lock()
        if self.path is not None and not self._closed:
            self._inherited = self._db


class _Transaction:
    """Around statements: all of them, or nothing. A class, as a generator would take a fifth of what keeping takes."""

    __slots__ = ("_db", "_mode")

    def __init__(self, db: sqlite3.Connection, mode: Literal["DEFERRED", "IMMEDIATE"] = "IMMEDIATE") -> None:
        self._db = db
        self._mode = mode

    def __enter__(self) -> None:
        self._db.execute(f"BEGIN {self._mode}")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                self._db.execute("COMMIT")
        finally:
            if self._db.in_transaction:  # a full disk has already rolled back
                self._db.execute("ROLLBACK")


class _Block:
    """A database in the hands of one thread, with a transaction where it `writes`."""

    __slots__ = ("_fault", "_lock", "_transaction", "_usable", "_writes")

    def __init__(
        self,
        lock: threading.Lock,
        usable: Callable[[], sqlite3.Connection],
        fault: Callable[[Exception], Exception],
        *,
        writes: bool,
    ) -> None:
        self._lock = lock
        self._usable = usable
        self._fault = fault
        self._writes = writes
        self._transaction: _Transaction | None = None

    def __enter__(self) -> sqlite3.Connection:
        self._lock.acquire()
        try:
            db = self._usable()
            if self._writes:
                self._transaction = _Transaction(db)
                self._transaction.__enter__()
            return db
        except FAULTS as error:
            self._lock.release()
            raise self._fault(error) from error
        except BaseException:
            self._lock.release()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if self._transaction is not None:
                self._transaction.__exit__(kind, error, trace)
        except FAULTS as failed:
            raise self._fault(failed) from failed
        finally:
            self._lock.release()
        if isinstance(error, FAULTS):
            raise self._fault(error) from error
