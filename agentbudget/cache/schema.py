"""The cache's tables in SQLite: how they are made, and how those of an earlier version become these."""

from __future__ import annotations

import sqlite3
from functools import cache
from typing import Final

from agentbudget.cache.database import Schema

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


_FIND: Final = """SELECT k.key, e.id, e.value, e.cost_usd_nano, e.created_ns FROM keys k JOIN entries e
    ON e.id = k.entry WHERE k.key {which} AND (k.expires_ns IS NULL OR k.expires_ns > ?{now})"""
_MOST_APART: Final = 4


@cache
def find(keys: int) -> str:
    """What stands under so many keys, and is not past its time.

    A few are sought one after the other: for a list SQLite makes a table first, a quarter of what a look-up takes.
    """
    now = keys + 1
    if 0 < keys <= _MOST_APART:
        return " UNION ALL ".join(_FIND.format(which=f"= ?{number}", now=now) for number in range(1, now))
    return _FIND.format(which=f"IN ({','.join(f'?{number}' for number in range(1, now))})", now=now)


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


def _adopt(db: sqlite3.Connection) -> None:
    """The answers of version 1, which did not say whose they were."""
    if not db.execute("SELECT 1 FROM sqlite_master WHERE name = 'answers'").fetchone():
        return
    db.execute(
        """INSERT INTO entries (id, kind, tenant, skill, skill_version, model, unlabelled, value, cost_usd_nano, bytes,
            created_ns, worth, named, names)
        SELECT row_number() OVER (ORDER BY created_ns, key), 'answer', '', '', '', '', 1, CAST(answer AS BLOB),
            cost_usd_nano, length(CAST(answer AS BLOB)) + length(key), created_ns,
            1.0 * cost_usd_nano / (length(CAST(answer AS BLOB)) + length(key)), 1, json_array(key) FROM answers"""
    )
    db.execute("INSERT INTO keys (key, entry) SELECT key, row_number() OVER (ORDER BY created_ns, key) FROM answers")
    db.execute("DROP TABLE answers")


SCHEMA: Final = Schema("cache", APPLICATION_ID, VERSION, TABLES, adopt=_adopt)
