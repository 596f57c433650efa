"""The tables of schema 1, as agentbudget 0.1.0 wrote them in SQLite, and how they become those of schema 2.

Schema 2 says more in the journal: an account's limit has an entry of its own, so has the sending of a call, and what
goes with a hold is read from there. So the entries are written anew, in a new chain. Its first entry says which chain
it goes on from; the old one, which was checked, is kept in a copy of the file.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterator
from hashlib import blake2b
from itertools import islice
from typing import Any, Final

from agentbudget.errors import SchemaMismatch
from agentbudget.ledger.fold import CLOSING
from agentbudget.ledger.records import NOTHING, UNLIMITED, Detail, EntryKind, Limits, Units
from agentbudget.ledger.sql import ADD_HOLD, PUT_ACCOUNT, PUT_HOLD, Row, SqlTransaction
from agentbudget.ledger.store import GENESIS
from agentbudget.ledger.verify import verify

_GENESIS: Final = "0" * 32
_ASIDE: Final = (
    "DROP TRIGGER IF EXISTS entries_are_immutable",
    "DROP TRIGGER IF EXISTS entries_stay",
    "DROP INDEX IF EXISTS holds_parent",
    "DROP INDEX IF EXISTS holds_open",
    "DROP INDEX IF EXISTS holds_tag",
    "ALTER TABLE accounts RENAME TO accounts_1",
    "ALTER TABLE holds RENAME TO holds_1",
    "ALTER TABLE entries RENAME TO entries_1",
)
_DROP: Final = ("DROP TABLE accounts_1", "DROP TABLE holds_1", "DROP TABLE entries_1")
_ENTRIES: Final = (
    "SELECT e.seq, e.at_ns, e.kind, e.subject, e.targets, e.held_usd, e.held_tokens, e.held_calls, "
    "e.posted_usd, e.posted_tokens, e.posted_calls, e.detail, e.hash, h.tag, h.sent "
    "FROM entries_1 e LEFT JOIN holds_1 h ON e.kind = 'reserve' AND h.id = e.subject ORDER BY e.seq"
)
_HOLDS: Final = (
    "SELECT h.id, h.parent, h.usd, h.tokens, h.calls, h.state, h.sent, h.owner, h.tag, "
    "h.reserved_usd, h.reserved_tokens, h.reserved_calls, h.spent_usd, h.spent_tokens, h.spent_calls, "
    "(SELECT count(*) FROM holds_1 c WHERE c.parent = h.id AND c.state = 'open'), "
    "h.settled_usd, h.settled_tokens, h.settled_calls, h.presumed FROM holds_1 h ORDER BY h.number"
)
_PARENTS: Final = "CREATE INDEX holds_parent_1 ON holds_1 (parent) WHERE state = 'open'"
_ACCOUNTS: Final = (
    "SELECT name, parent, limit_usd, limit_tokens, limit_calls, '{}', posted_usd, posted_tokens, posted_calls, "
    "held_usd, held_tokens, held_calls, NULL FROM accounts_1"
)
_LEASES: Final = (
    "INSERT INTO leases (owner, until_ns) "
    "SELECT owner, max(lease_until_ns) FROM holds_1 WHERE state = 'open' GROUP BY owner"
)


def set_aside(db: sqlite3.Connection) -> None:
    """Give the tables other names, so that those of schema 2 can be made."""
    for statement in _ASIDE:
        db.execute(statement)


def bring_over(db: sqlite3.Connection, location: str) -> None:
    """Fill the new tables from those that were set aside, and drop them.

    Raises `SchemaMismatch` if the old chain is broken, or if the old balances are not what the entries say.
    """
    count, last_hash = _proven(db, location)
    tx = SqlTransaction(db.execute)
    tx.begin(0, GENESIS)
    _write(tx, "migrate", "schema 2", time.time_ns(), {"from": 1, "entries": count, "hash": last_hash})
    opened, closed = _bring_entries(db, tx)
    for row in db.execute(_ACCOUNTS):
        db.execute(PUT_ACCOUNT, row)
    db.execute(_PARENTS)
    for row in db.execute(_HOLDS):
        _bring_hold(db, row, opened.get(row[0]), closed.get(row[0]))
    db.execute(_LEASES)
    for statement in _DROP:
        db.execute(statement)
    tx.forget()
    found = verify(tx)
    if not found.ok:
        raise _unproven(location, "; ".join(islice(found.problems, 3)))


def _unproven(location: str, problem: str) -> SchemaMismatch:
    return SchemaMismatch(
        f"the ledger {location} of schema 1 does not prove and was left as it is: {problem}; "
        "look at it with agentbudget 0.1.0, or name another path"
    )


def _proven(db: sqlite3.Connection, location: str) -> tuple[int, str]:
    """How many entries the old chain has, and its last hash."""
    before = _GENESIS
    count = 0
    for seq, at_ns, kind, subject, targets, h0, h1, h2, p0, p1, p2, detail, digest, _, _ in db.execute(_ENTRIES):
        count += 1
        line = f"{before}|{seq}|{at_ns}|{kind}|{subject}|{targets}|{(h0, h1, h2)}|{(p0, p1, p2)}|{detail}"
        if seq != count:
            raise _unproven(location, f"entry {seq} stands where {count} should: one is missing")
        if digest != blake2b(line.encode(), digest_size=16).hexdigest():
            raise _unproven(location, f"entry {seq} does not match its hash: it was changed")
        before = digest
    return count, before


def _bring_entries(db: sqlite3.Connection, tx: SqlTransaction) -> tuple[dict[str, int], dict[str, int]]:
    """Write the entries anew; returns which one opened, and which one last closed, each hold."""
    opened: dict[str, int] = {}
    closed: dict[str, int] = {}
    for row in db.execute(_ENTRIES):
        kind, subject = row[2], row[3]
        for number, (new_kind, detail) in enumerate(_as_of_2(row)):
            first = number == 0
            held, posted = (row[5:8], row[8:11]) if first else (NOTHING, NOTHING)
            targets = tuple(json.loads(row[4])) if first else ()
            seq = _write(tx, new_kind, subject, row[1], detail, targets=targets, held=held, posted=posted)
            if new_kind == "reserve":
                opened[subject] = seq
            elif kind in CLOSING or (kind == "correct" and "because" not in detail):
                closed[subject] = seq
    return opened, closed


def _as_of_2(row: Row) -> Iterator[tuple[EntryKind, Detail]]:
    """What schema 2 says for an entry of schema 1, the changes of balances first."""
    kind: EntryKind = row[2]
    detail: dict[str, Any] = json.loads(row[11], parse_constant=str)  # schema 1 let NaN pass, which is no JSON
    tag, sent = row[13], row[14]
    match kind:
        case "account":
            yield "account", {"parent": detail["parent"]}
            if _limits(detail) != UNLIMITED:
                yield "limit", {"window": "total", "limit": _limits(detail)}
        case "limit":
            yield "limit", {"window": "total", "limit": _limits(detail)}
        case "reserve":
            yield "reserve", ({"tag": tag} if tag else {}) | ({"meta": detail} if detail else {})
            if sent:  # when, schema 1 did not say
                yield "sent", {"from": 1}
        case _:
            yield kind, detail


def _limits(detail: Detail) -> Limits:
    limit = detail["limit"]
    return (limit["usd_nano"], limit["tokens"], limit["calls"])


def _write(
    tx: SqlTransaction,
    kind: EntryKind,
    subject: str,
    at_ns: int,
    detail: Detail,
    *,
    targets: tuple[str, ...] = (),
    held: Units = NOTHING,
    posted: Units = NOTHING,
) -> int:
    return tx.append(kind, subject, at_ns=at_ns, targets=targets, held=held, posted=posted, detail=detail)


def _bring_hold(db: sqlite3.Connection, row: Row, opened: int | None, closed: int | None) -> None:
    hold_id, parent, *amount = row[:5]
    state, sent, owner, tag = row[5:9]
    db.execute(ADD_HOLD, (opened, hold_id, parent, *amount, state, sent, owner, tag or None))
    db.execute(PUT_HOLD, (*amount, state, sent, owner, *row[9:20], closed, opened))
