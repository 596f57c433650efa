"""The ledger's rows in one SQLite file: the default, safe for threads, processes and kill -9.

Write-ahead log with ``synchronous=NORMAL``: a transaction survives the death of the process; the last ones
may be lost if the machine itself loses power, and never half of one.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final, cast

from agentbudget.errors import SchemaMismatch, StoreBusy, StoreUnavailable
from agentbudget.ledger.records import Account, Delta, Detail, Entry, EntryKind, HoldRecord, units
from agentbudget.ledger.store import GENESIS, canonical, chain_hash
from agentbudget.money import Amount, Budget, nano_to_usd

SCHEMA_VERSION: Final = 1
APPLICATION_ID: Final = 0x41474254
"""``AGBT``: marks the file as ours, so that a path to another program's database is refused."""

SCHEMA: Final = """
CREATE TABLE accounts (
  name TEXT PRIMARY KEY, parent TEXT,
  limit_usd INTEGER, limit_tokens INTEGER, limit_calls INTEGER,
  posted_usd INTEGER NOT NULL, posted_tokens INTEGER NOT NULL, posted_calls INTEGER NOT NULL,
  held_usd INTEGER NOT NULL, held_tokens INTEGER NOT NULL, held_calls INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE holds (
  number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, parent TEXT, accounts TEXT NOT NULL,
  usd INTEGER NOT NULL, tokens INTEGER NOT NULL, calls INTEGER NOT NULL,
  state TEXT NOT NULL, sent INTEGER NOT NULL, owner TEXT NOT NULL, lease_until_ns INTEGER NOT NULL,
  tag TEXT NOT NULL, meta TEXT NOT NULL, created_ns INTEGER NOT NULL,
  reserved_usd INTEGER NOT NULL, reserved_tokens INTEGER NOT NULL, reserved_calls INTEGER NOT NULL,
  spent_usd INTEGER NOT NULL, spent_tokens INTEGER NOT NULL, spent_calls INTEGER NOT NULL,
  settled_usd INTEGER, settled_tokens INTEGER, settled_calls INTEGER,
  presumed INTEGER NOT NULL, closed_ns INTEGER, detail TEXT NOT NULL
) STRICT;
CREATE INDEX holds_parent ON holds (parent) WHERE parent IS NOT NULL;
CREATE INDEX holds_open ON holds (owner) WHERE state = 'open';
CREATE INDEX holds_tag ON holds (tag, closed_ns) WHERE state = 'settled';
CREATE TABLE entries (
  seq INTEGER PRIMARY KEY, at_ns INTEGER NOT NULL, kind TEXT NOT NULL, subject TEXT NOT NULL, targets TEXT NOT NULL,
  held_usd INTEGER NOT NULL, held_tokens INTEGER NOT NULL, held_calls INTEGER NOT NULL,
  posted_usd INTEGER NOT NULL, posted_tokens INTEGER NOT NULL, posted_calls INTEGER NOT NULL,
  detail TEXT NOT NULL, hash TEXT NOT NULL
) STRICT;
CREATE TRIGGER entries_are_immutable BEFORE UPDATE ON entries BEGIN SELECT RAISE(ABORT, 'entries are immutable'); END;
CREATE TRIGGER entries_stay BEFORE DELETE ON entries BEGIN SELECT RAISE(ABORT, 'entries are immutable'); END;
"""

HOLD_COLUMNS: Final = (
    "id, parent, accounts, usd, tokens, calls, state, sent, owner, lease_until_ns, tag, meta, created_ns, "
    "reserved_usd, reserved_tokens, reserved_calls, spent_usd, spent_tokens, spent_calls, "
    "settled_usd, settled_tokens, settled_calls, presumed, closed_ns, detail"
)
PUT_HOLD: Final = (
    f"INSERT INTO holds ({HOLD_COLUMNS}) VALUES ({','.join('?' * 25)}) ON CONFLICT (id) DO UPDATE SET "
    + ", ".join(
        f"{c} = excluded.{c}"
        for c in HOLD_COLUMNS.split(", ")
        if c not in {"id", "parent", "accounts", "tag", "meta", "created_ns"}
    )
)
ACCOUNT_COLUMNS: Final = (
    "name, parent, limit_usd, limit_tokens, limit_calls, posted_usd, posted_tokens, posted_calls, "
    "held_usd, held_tokens, held_calls"
)
ENTRY_COLUMNS: Final = (
    "seq, at_ns, kind, subject, targets, held_usd, held_tokens, held_calls, "
    "posted_usd, posted_tokens, posted_calls, detail, hash"
)


class SqliteStore:
    """A `Store` in the file at `path`, made with its folders if it is not there."""

    def __init__(self, path: Path, *, busy_timeout_s: float = 10.0) -> None:
        self._path = path
        self._lock = threading.RLock()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(path, timeout=busy_timeout_s, isolation_level=None, check_same_thread=False)
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = NORMAL")
            self._migrate()
        except (OSError, sqlite3.Error) as error:
            raise self._fault(error, "open") from error

    @property
    def location(self) -> str:
        return str(self._path)

    def _migrate(self) -> None:
        """Make the tables in a new file; refuse a file of another program or of a newer version."""
        with self._begin("IMMEDIATE"):
            (tables,) = self._db.execute("SELECT count(*) FROM sqlite_master").fetchone()
            (application,) = self._db.execute("PRAGMA application_id").fetchone()
            (version,) = self._db.execute("PRAGMA user_version").fetchone()
            if tables == 0:
                for statement in filter(str.strip, SCHEMA.replace("; END;", "/ END;").split(";\n")):
                    self._db.execute(statement.replace("/ END", "; END"))
                self._db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
                self._db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
            elif application != APPLICATION_ID:
                raise SchemaMismatch(f"{self._path} is another program's database; name another path for the ledger")
            elif version != SCHEMA_VERSION:
                raise SchemaMismatch(
                    f"the ledger {self._path} has schema {version}, this agentbudget reads {SCHEMA_VERSION}; "
                    "use the version that wrote it, or name another path"
                )

    @contextmanager
    def _begin(self, mode: str) -> Generator[None]:
        with self._lock:
            try:
                self._db.execute(f"BEGIN {mode}")
            except sqlite3.Error as error:
                raise self._fault(error, "lock") from error
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException as error:
                # A full disk may already have rolled back; what raised is the error to report.
                with suppress(sqlite3.Error):
                    self._db.execute("ROLLBACK")
                if isinstance(error, sqlite3.Error):
                    raise self._fault(error, "write") from error
                raise

    @contextmanager
    def write(self) -> Generator[SqliteTransaction]:
        with self._begin("IMMEDIATE"):
            yield SqliteTransaction(self._db)

    @contextmanager
    def read(self) -> Generator[SqliteTransaction]:
        with self._begin("DEFERRED"):
            yield SqliteTransaction(self._db)

    def _fault(self, error: Exception, verb: str) -> StoreUnavailable | StoreBusy | SchemaMismatch:
        text = str(error)
        if isinstance(error, sqlite3.OperationalError) and ("locked" in text or "busy" in text):
            return StoreBusy(
                f"another process kept the ledger {self._path} locked; nothing was admitted, try again when it is done"
            )
        if isinstance(error, sqlite3.DatabaseError) and "not a database" in text:
            return SchemaMismatch(f"{self._path} is not an SQLite database; name another path for the ledger")
        return StoreUnavailable(f"cannot {verb} the ledger {self._path}: {text}; nothing was admitted")

    def close(self) -> None:
        with self._lock:
            self._db.close()


class SqliteTransaction:
    """Rows of one open transaction."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def account(self, name: str) -> Account | None:
        row = self._db.execute(f"SELECT {ACCOUNT_COLUMNS} FROM accounts WHERE name = ?", (name,)).fetchone()
        return None if row is None else _account(row)

    def accounts(self) -> list[Account]:
        return [_account(row) for row in self._db.execute(f"SELECT {ACCOUNT_COLUMNS} FROM accounts ORDER BY name")]

    def put_account(self, account: Account) -> None:
        limit = account.limit
        self._db.execute(
            f"INSERT OR REPLACE INTO accounts ({ACCOUNT_COLUMNS}) VALUES (?,?,?,?,?,?,?,?,?,?,?)",
            (
                account.name,
                account.parent,
                limit.usd_nano,
                limit.tokens,
                limit.calls,
                *units(account.posted),
                *units(account.held),
            ),
        )

    def hold(self, hold_id: str) -> HoldRecord | None:
        row = self._db.execute(f"SELECT {HOLD_COLUMNS} FROM holds WHERE id = ?", (hold_id,)).fetchone()
        return None if row is None else _hold(row)

    def put_hold(self, hold: HoldRecord) -> None:
        settled = (None, None, None) if hold.settled is None else units(hold.settled)
        self._db.execute(
            PUT_HOLD,
            (
                hold.id,
                hold.parent,
                canonical(hold.accounts),
                *units(hold.amount),
                hold.state,
                int(hold.sent),
                hold.owner,
                hold.lease_until_ns,
                hold.tag,
                canonical(hold.meta),
                hold.created_ns,
                *units(hold.reserved),
                *units(hold.spent),
                *settled,
                int(hold.presumed),
                hold.closed_ns,
                canonical(hold.detail),
            ),
        )

    def _holds(self, where: str, values: tuple[object, ...]) -> list[HoldRecord]:
        return [_hold(row) for row in self._db.execute(f"SELECT {HOLD_COLUMNS} FROM holds {where}", values)]

    def holds_within(self, parent: str) -> list[HoldRecord]:
        return self._holds("WHERE parent = ? ORDER BY number", (parent,))

    def holds(self, *, prefix: str = "", state: str | None = None) -> list[HoldRecord]:
        if state == "open":  # a literal, so that the partial index serves
            return self._holds(
                "WHERE state = 'open' AND id >= ? AND id < ? ORDER BY number", (prefix, prefix + "\U0010ffff")
            )
        rows = self._holds("WHERE id >= ? AND id < ? ORDER BY number", (prefix, prefix + "\U0010ffff"))
        return [h for h in rows if state is None or h.state == state]

    def history(self, tag: str, limit: int) -> list[HoldRecord]:
        return self._holds(
            "WHERE tag = ? AND state = 'settled' AND presumed = 0 ORDER BY closed_ns DESC LIMIT ?", (tag, limit)
        )

    def renew(self, owner: str, lease_until_ns: int) -> int:
        return self._db.execute(
            "UPDATE holds SET lease_until_ns = ? WHERE owner = ? AND state = 'open'", (lease_until_ns, owner)
        ).rowcount

    def append(
        self, kind: EntryKind, *, subject: str, targets: tuple[str, ...], delta: Delta, detail: Detail, at_ns: int
    ) -> Entry:
        last = self._db.execute("SELECT seq, hash FROM entries ORDER BY seq DESC LIMIT 1").fetchone()
        seq, before = (last[0] + 1, last[1]) if last else (1, GENESIS)
        targets_text, detail_text = canonical(targets), canonical(detail)
        digest = chain_hash(before, seq, at_ns, kind, subject, targets_text, delta, detail_text)
        self._db.execute(
            f"INSERT INTO entries ({ENTRY_COLUMNS}) VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?)",
            (seq, at_ns, kind, subject, targets_text, *delta.held, *delta.posted, detail_text, digest),
        )
        return Entry(seq, at_ns, kind, subject, targets, delta, detail, digest)

    def entries(self, *, after: int = 0) -> Iterator[Entry]:
        for row in self._db.execute(f"SELECT {ENTRY_COLUMNS} FROM entries WHERE seq > ? ORDER BY seq", (after,)):
            yield Entry(
                seq=row[0],
                at_ns=row[1],
                kind=cast(EntryKind, row[2]),
                subject=row[3],
                targets=tuple(json.loads(row[4])),
                delta=Delta(held=(row[5], row[6], row[7]), posted=(row[8], row[9], row[10])),
                detail=json.loads(row[11]),
                hash=row[12],
            )


def _account(row: tuple[Any, ...]) -> Account:
    limit = Budget(usd=None if row[2] is None else nano_to_usd(row[2]), tokens=row[3], calls=row[4])
    return Account(row[0], row[1], limit, Amount(*row[5:8]), Amount(*row[8:11]))


def _hold(row: tuple[Any, ...]) -> HoldRecord:
    return HoldRecord(
        id=row[0],
        parent=row[1],
        accounts=tuple(json.loads(row[2])),
        amount=Amount(*row[3:6]),
        state=row[6],
        sent=bool(row[7]),
        owner=row[8],
        lease_until_ns=row[9],
        tag=row[10],
        meta=json.loads(row[11]),
        created_ns=row[12],
        reserved=Amount(*row[13:16]),
        spent=Amount(*row[16:19]),
        settled=None if row[19] is None else Amount(*row[19:22]),
        presumed=bool(row[22]),
        closed_ns=row[23],
        detail=json.loads(row[24]),
    )
