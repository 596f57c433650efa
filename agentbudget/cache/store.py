"""What was paid for, by key: one SQLite file (or memory) that threads and processes share, within a bound."""

from __future__ import annotations

import json
import logging
import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

from agentbudget.cache import schema
from agentbudget.cache.database import Database
from agentbudget.cache.label import Kind, Label, Which
from agentbudget.errors import Mistake, StoreError

_log = logging.getLogger(__name__)

TOUCHES: Final = 256
"""Hits that are noted in memory before they are written: a look-up writes nothing by itself."""

SWEEP_NS: Final = 10**9
"""So long after one sweep of what is past its time there is no other."""

EVICTED: Final = 32
"""So many go at once when the bound is reached, so that the next few puts need not look."""

NS_PER_S: Final = 10**9

LATEST_NS: Final = 1 << 63
"""Above all that an integer of SQLite can be: in the year 2262."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How much is kept: entries, and bytes of what is in them (the file is about a third larger)."""

    entries: int = 1_000_000
    bytes: int = 1 << 30

    def __post_init__(self) -> None:
        if self.entries < 1 or self.bytes < 1:
            raise Mistake(f"a cache must have room for something, not {self}: a skill's cache='off' keeps nothing")


class Row(NamedTuple):
    """An entry as it stands under `key`. ``cost_usd_nano`` is what it cost when it was bought."""

    key: str
    entry: int
    value: bytes
    cost_usd_nano: int
    created_ns: int


class Item(NamedTuple):
    """What is to be kept: a value, the keys to keep it under (for so many seconds each), and what it cost."""

    keys: Mapping[str, float | None]
    value: bytes
    cost_usd_nano: int


@dataclass(frozen=True, slots=True)
class Kept:
    """What the cache holds of one kind: entries, bytes, how often they were asked for again, what that saved."""

    kind: Kind
    entries: int
    bytes: int
    hits: int
    saved_usd_nano: int


class Store(Database):
    """Entries in the file at `path`, made with its folder if it is not there; None: in memory.

    Where the bound is reached, those entries go first that would save least: what an entry cost for each byte, times
    how often it was asked for, aged by what has been dropped since (GreedyDual-Size-Frequency, Cherkasova 1998).
    Raises what `Database` does.
    """

    def __init__(
        self,
        path: str | Path | None = None,
        *,
        limits: Limits | None = None,
        clock_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self.limits = limits or Limits()
        self.clock_ns = clock_ns
        self._touched: dict[int, int] = {}
        self._swept_ns = 0
        super().__init__(path, schema.SCHEMA)

    # --- one entry

    def find(self, keys: Sequence[str]) -> list[Row]:
        """What stands under these keys, in their order, without what is past its time."""
        found = self._rows(schema.find(len(keys)), (*keys, self.clock_ns()))
        if len(found) > 1:
            found.sort(key=lambda row: keys.index(row[0]))
        return [Row._make(row) for row in found]

    def touch(self, entry: int) -> None:
        """Note that an entry was asked for again."""
        with self._lock:
            self._touched[entry] = self._touched.get(entry, 0) + 1
            due = len(self._touched) >= TOUCHES
        if due:
            try:
                with self._writing() as db:
                    self._write_touches(db)
            except StoreError as error:
                _log.debug("hits of the cache are noted later: %s", error)

    def put(self, keys: Mapping[str, float | None], value: bytes, label: Label, *, cost_usd_nano: int) -> None:
        """Keep `value` under each of these keys for so many seconds (None: without end), in place of what stood there.

        What alone is larger than the bound is not kept: it would drive out everything else.
        """
        self.put_all([Item(keys, value, cost_usd_nano)], label)

    def put_all(self, items: Sequence[Item], label: Label) -> None:
        """`put` for several at once."""
        now = self.clock_ns()
        with self._writing() as db:
            if now >= self._swept_ns + SWEEP_NS:
                self._swept_ns = now
                db.execute(schema.DROP_EXPIRED, (now,))
            self._write_touches(db)
            for item in items:
                self._add(db, item, label, now)
            self._make_room(db)

    def _add(self, db: sqlite3.Connection, item: Item, label: Label, now: int) -> None:
        keys, value, cost = item
        size = len(value) + sum(map(len, keys)) + sum(len(s.document) + len(s.chunk) for s in label.sources)
        if size > self.limits.bytes:
            return
        whose = (label.kind, label.tenant, label.skill, label.skill_version, label.model)
        names = json.dumps(list(keys))
        entry = db.execute(schema.ADD, (*whose, value, cost, size, now, len(keys), names)).lastrowid
        named = [(key, entry, _expiry(now, ttl_s)) for key, ttl_s in keys.items()]
        try:
            db.executemany(schema.ADD_KEY, named)
        except sqlite3.IntegrityError:  # seldom: something stood there
            _drop_keys(db, list(keys))
            db.executemany(schema.ADD_KEY, named)
            db.execute("UPDATE entries SET named = ? WHERE id = ?", (len(keys), entry))
        if label.sources:
            db.executemany(schema.ADD_SOURCE, [(*source, entry) for source in set(label.sources)])

    def drop(self, keys: Sequence[str]) -> None:
        """Forget what stands under these keys."""
        with self._writing() as db:
            _drop_keys(db, keys)

    # --- all of them

    def invalidate(self, which: Which) -> int:
        """Forget the entries that fit; returns how many. Raises `Mistake` where nothing is said of them."""
        conditions, values = _conditions(which, self.clock_ns())
        if not conditions:
            raise Mistake(
                "say what to forget: a kind, tenant, skill, model, document, chunk or age; or clear the cache"
            )
        return self._forget(" AND ".join(conditions), values)

    def clear(self) -> int:
        """Forget everything; returns how many entries there were."""
        return self._forget("1", ())

    def _forget(self, which: str, values: Sequence[object]) -> int:
        with self._writing() as db:
            db.execute("PRAGMA secure_delete = ON")  # what has to go is overwritten, not only let go of
            before = _count(db)
            db.execute(schema.FORGET.format(which=which), values)
            gone = before - _count(db)
        with self._using() as db:
            db.execute("PRAGMA secure_delete = OFF")
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        return gone

    def kept(self) -> list[Kept]:
        """What is kept of each kind that there is."""
        with self._writing() as db:
            self._write_touches(db)
            return [Kept(*row) for row in db.execute(schema.BY_KIND).fetchall()]

    @property
    def size(self) -> tuple[int, int]:
        """Entries, and bytes in them."""
        with self._using() as db:
            entries, size = db.execute("SELECT entries, bytes FROM totals").fetchone()
        return int(entries), int(size)

    def _make_room(self, db: sqlite3.Connection) -> None:
        """Drop what would save least until the bound holds."""
        while True:
            entries, size = db.execute("SELECT entries, bytes FROM totals").fetchone()
            if entries <= self.limits.entries and size <= self.limits.bytes:
                return
            least = db.execute(schema.LEAST, (min(EVICTED, max(1, entries // 10)),)).fetchall()
            db.execute("UPDATE totals SET age = max(age, ?)", (least[-1][1],))
            db.executemany(schema.DROP_KEY, [(key, entry) for entry, _, names in least for key in json.loads(names)])

    def _write_touches(self, db: sqlite3.Connection) -> None:
        if self._touched:
            db.executemany(schema.TOUCH, [(count, entry) for entry, count in self._touched.items()])
            self._touched.clear()

    # --- its end

    def close(self) -> None:
        """Note the hits that were not, and close the file. Closing it twice does no harm."""
        if not self._closed and self._touched:
            try:
                with self._writing() as db:
                    self._write_touches(db)
            except StoreError as error:
                _log.warning("hits of the cache were not noted: %s", error)
        super().close()

    def after_fork(self, *, child: bool) -> None:
        """See `Database.after_fork`. What was touched is for the parent to note."""
        super().after_fork(child=child)
        if child and self.path is not None:
            self._touched.clear()


def _count(db: sqlite3.Connection) -> int:
    (entries,) = db.execute("SELECT entries FROM totals").fetchone()
    return int(entries)


def _drop_keys(db: sqlite3.Connection, keys: Sequence[str]) -> None:
    db.execute(f"DELETE FROM keys WHERE key IN ({','.join('?' * len(keys))})", keys)


def _expiry(now_ns: int, ttl_s: float | None) -> int | None:
    """When an entry is past its time; None: never, or later than a file of SQLite can say."""
    if ttl_s is None or ttl_s * NS_PER_S >= LATEST_NS - now_ns:
        return None
    return now_ns + round(ttl_s * NS_PER_S)


def _conditions(which: Which, now_ns: int) -> tuple[list[str], list[Any]]:
    """What `which` says, as SQL and its values."""
    conditions: list[str] = []
    values: list[Any] = []
    for column in ("kind", "model"):
        if (value := getattr(which, column)) is not None:
            conditions.append(f"{column} = ?")
            values.append(value)
    for column in ("tenant", "skill", "skill_version"):
        if (value := getattr(which, column)) is not None:
            conditions.append(f"({column} = ? OR unlabelled)")
            values.append(value)
    for column in ("document", "chunk"):
        if (value := getattr(which, column)) is not None:
            conditions.append(f"(id IN (SELECT entry FROM sources WHERE {column} = ?) OR unlabelled)")
            values.append(value)
    if which.older_than_s is not None:
        conditions.append("created_ns < ?")
        values.append(now_ns - round(which.older_than_s * NS_PER_S))
    return conditions, values
