"""The cache's tables in SQLite: how they are made, and how those of an earlier version become these."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Final

from agentbudget.errors import SchemaMismatch

VERSION: Final = 2
APPLICATION_ID: Final = 0x41474243
"""``AGBC``: marks the file as ours, so that a path to another program's database is refused."""

TABLES: Final = (
    """CREATE TABLE entries (
        id INTEGER PRIMARY KEY, kind TEXT NOT NULL, tenant TEXT NOT NULL, skill TEXT NOT NULL,
        skill_version TEXT NOT NULL, model TEXT NOT NULL, unlabelled INTEGER NOT NULL DEFAULT 0, value BLOB NOT NULL,
        cost_usd_nano INTEGER NOT NULL, bytes INTEGER NOT NULL, created_ns INTEGER NOT NULL,
        hits INTEGER NOT NULL DEFAULT 0, worth REAL NOT NULL, named INTEGER NOT NULL, names TEXT NOT NULL
    ) STRICT""",
    "CREATE TABLE keys (key TEXT PRIMARY KEY, entry INTEGER NOT NULL, expires_ns INTEGER) STRICT, WITHOUT ROWID",
    """CREATE TABLE sources (
        document TEXT NOT NULL, chunk TEXT NOT NULL, entry INTEGER NOT NULL, PRIMARY KEY (document, chunk, entry)
    ) STRICT, WITHOUT ROWID""",
    "CREATE TABLE totals (entries INTEGER NOT NULL, bytes INTEGER NOT NULL, age REAL NOT NULL) STRICT",
    "INSERT INTO totals VALUES (0, 0, 0)",
    "CREATE INDEX entries_by_worth ON entries (worth)",
    "CREATE INDEX keys_by_expiry ON keys (expires_ns) WHERE expires_ns IS NOT NULL",
    "CREATE INDEX sources_by_entry ON sources (entry)",
    "CREATE INDEX sources_by_chunk ON sources (chunk)",
    """CREATE TRIGGER counted AFTER INSERT ON entries
       BEGIN UPDATE totals SET entries = entries + 1, bytes = bytes + new.bytes; END""",
    """CREATE TRIGGER uncounted AFTER DELETE ON entries
       BEGIN
           UPDATE totals SET entries = entries - 1, bytes = bytes - old.bytes;
           DELETE FROM sources WHERE entry = old.id;
       END""",
    # An entry lives as long as it can be found: whoever drops its last key has dropped it.
    """CREATE TRIGGER unfound AFTER DELETE ON keys
       BEGIN
           UPDATE entries SET named = named - 1 WHERE id = old.entry;
           DELETE FROM entries WHERE id = old.entry AND named = 0;
       END""",
)
"""``names`` are the keys under which an entry was put, as JSON, and ``named`` is how many of them still lead to it."""


def find(keys: int) -> str:
    """What stands under so many keys, and is not past its time."""
    return f"""SELECT k.key, e.id, e.value, e.cost_usd_nano, e.created_ns FROM keys k JOIN entries e ON e.id = k.entry
        WHERE k.key IN ({",".join("?" * keys)}) AND (k.expires_ns IS NULL OR k.expires_ns > ?)"""


FIND_ONE: Final = find(1)
FIND_TWO: Final = find(2)
ADD: Final = """INSERT INTO entries
    (kind, tenant, skill, skill_version, model, value, cost_usd_nano, bytes, created_ns, named, names, worth)
    SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, age + 1.0 * ?7 / ?8 FROM totals"""
ADD_KEY: Final = "INSERT INTO keys (key, entry, expires_ns) VALUES (?, ?, ?)"
DROP_KEY: Final = "DELETE FROM keys WHERE key = ? AND entry = ?"
FORGET: Final = """DELETE FROM keys WHERE (key, entry) IN
    (SELECT name.value, chosen.id FROM (SELECT id, names FROM entries WHERE {which}) AS chosen,
     json_each(chosen.names) AS name)"""
ADD_SOURCE: Final = "INSERT INTO sources (document, chunk, entry) VALUES (?, ?, ?)"
TOUCH: Final = """UPDATE entries SET hits = hits + ?1,
    worth = (SELECT age FROM totals) + (1 + hits + ?1) * 1.0 * cost_usd_nano / bytes WHERE id = ?2"""
DROP_EXPIRED: Final = "DELETE FROM keys WHERE expires_ns <= ?"
LEAST: Final = "SELECT id, worth, names FROM entries ORDER BY worth, id LIMIT ?"
BY_KIND: Final = """SELECT kind, count(*), sum(bytes), sum(hits), sum(hits * cost_usd_nano)
    FROM entries GROUP BY kind ORDER BY kind"""


def opened(path: Path | None, *, busy_timeout_s: float) -> sqlite3.Connection:
    """A connection to the file, its tables made or brought to this version. Raises `SchemaMismatch`, ``sqlite3.Error``.

    Nothing is written before it is known to be ours.
    """
    db = sqlite3.connect(path or ":memory:", timeout=busy_timeout_s, isolation_level=None, check_same_thread=False)
    try:
        if not _is_current(db, path):
            _migrate(db, path)
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = NORMAL")
    except BaseException:
        db.close()
        raise
    return db


def _is_current(db: sqlite3.Connection, path: Path | None) -> bool:
    """Whether the tables are these. Raises `SchemaMismatch` for those of a later version or another program."""
    (application,) = db.execute("PRAGMA application_id").fetchone()
    (tables,) = db.execute("SELECT count(*) FROM sqlite_master").fetchone()
    (version,) = db.execute("PRAGMA user_version").fetchone()
    if tables and application != APPLICATION_ID:
        raise SchemaMismatch(
            f"{path} is another program's database; name another path for the cache", location=str(path)
        )
    if version > VERSION:
        raise SchemaMismatch(
            f"the cache {path} was written by a later version of agentbudget; upgrade, or name another home",
            location=str(path),
            found=version,
            expected=VERSION,
        )
    return version == VERSION


def _migrate(db: sqlite3.Connection, path: Path | None) -> None:
    db.execute("BEGIN IMMEDIATE")
    try:
        if not _is_current(db, path):  # by now: another process may have been first
            for statement in TABLES:
                db.execute(statement)
            if db.execute("SELECT 1 FROM sqlite_master WHERE name = 'answers'").fetchone():
                _adopt(db)
            db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            db.execute(f"PRAGMA user_version = {VERSION}")
        db.execute("COMMIT")
    except BaseException:
        db.execute("ROLLBACK")
        raise


def _adopt(db: sqlite3.Connection) -> None:
    """The answers of version 1, which did not say whose they were."""
    db.execute(
        """INSERT INTO entries (id, kind, tenant, skill, skill_version, model, unlabelled, value, cost_usd_nano, bytes,
            created_ns, worth, named, names)
        SELECT row_number() OVER (ORDER BY created_ns, key), 'answer', '', '', '', '', 1, CAST(answer AS BLOB),
            cost_usd_nano, length(CAST(answer AS BLOB)) + length(key), created_ns,
            1.0 * cost_usd_nano / (length(CAST(answer AS BLOB)) + length(key)), 1, json_array(key) FROM answers"""
    )
    db.execute("INSERT INTO keys (key, entry) SELECT key, row_number() OVER (ORDER BY created_ns, key) FROM answers")
    db.execute("DROP TABLE answers")
