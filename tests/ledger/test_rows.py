"""Rows of the table of holds say what the holds are, short or whole."""

from __future__ import annotations

import sqlite3
from collections.abc import Generator
from contextlib import closing
from pathlib import Path

import pytest

from agentbudget.ledger import Ledger
from agentbudget.ledger.records import EMPTY, HoldRecord, closed, opened
from agentbudget.ledger.rows import PLAIN_FIELDS, PUT_PLAIN, PUT_WHOLE, is_plain, plain_row, whole_row
from agentbudget.ledger.sql import HOLD_FIELDS
from agentbudget.ledger.sqlite import SqliteStore
from agentbudget.money import Amount, Budget

OPEN = opened(7, "h", None, ("a",), (1, 2, 3), "owner", "t", EMPTY, 5)
ENDED = closed(OPEN, "settled", (4, 5, 6), 8, 6, EMPTY, True)
PARENT = OPEN._replace(reserved_units=(1, 0, 0), spent_units=(0, 1, 0), children=1)


@pytest.fixture
def table(tmp_path: Path) -> Generator[sqlite3.Connection]:
    """A ledger's file, without its ledger."""
    path = tmp_path / "ledger.db"
    Ledger(SqliteStore(path)).close()
    with closing(sqlite3.connect(path)) as db:
        yield db


@pytest.mark.parametrize("hold", [OPEN, ENDED, OPEN._replace(sent=True, tag="")])
def test_a_plain_row_says_as_much_as_a_whole_one(table: sqlite3.Connection, hold: HoldRecord) -> None:
    fields = ", ".join(HOLD_FIELDS)
    table.execute(PUT_PLAIN, plain_row(hold))
    assert table.execute(f"SELECT {fields} FROM holds").fetchall() == [whole_row(hold)]


def test_a_plain_row_takes_back_what_was_held_within(table: sqlite3.Connection) -> None:
    table.execute(PUT_WHOLE, whole_row(PARENT))
    table.execute(PUT_PLAIN, plain_row(OPEN))
    assert table.execute(f"SELECT {', '.join(HOLD_FIELDS)} FROM holds").fetchall() == [whole_row(OPEN)]


def test_what_is_within_another_or_has_held_something_is_not_plain() -> None:
    others = [
        OPEN._replace(parent="p"),
        PARENT,
        PARENT._replace(children=0, reserved_units=(0, 0, 0)),
        OPEN._replace(children=1),
        OPEN._replace(reserved_units=(0, 0, 1)),
    ]
    assert not any(map(is_plain, others))
    assert is_plain(OPEN)
    assert len(PLAIN_FIELDS) == len(plain_row(OPEN))


def test_what_another_wrote_becomes_the_row_that_it_would_have_written(tmp_path: Path) -> None:
    path, rows = tmp_path / "ledger.db", "SELECT * FROM holds ORDER BY number"
    with Ledger(SqliteStore(path)) as one, Ledger(SqliteStore(path)) as other:
        one.account("a", limit=Budget(calls=1000))
        for ledger in (one, other):
            ledger.reserve(ledger.owner, Amount(calls=1), accounts=["a"]).settle()  # each knows that the other writes
        one.reserve("open", Amount(1, 2, 3), accounts=["a"], tag="t")
        one.reserve("sent", Amount(1, 2, 3), accounts=["a"]).mark_sent()
        one.reserve("settled", Amount(1, 2, 3), accounts=["a"], tag="t").settle(Amount(4, 5, 6))
        one.reserve("presumed", Amount(1, 2, 3), accounts=["a"]).settle(Amount(1), presumed=True)
        one.reserve("void", Amount(1, 2, 3), accounts=["a"]).void()
        other.account("b")  # brings the tables up
        with closing(sqlite3.connect(path)) as db:
            found = {row[1]: row for row in db.execute(rows)}
            assert db.execute("SELECT applied = (SELECT max(seq) FROM entries) FROM head").fetchone() == (1,)
        for hold_id in ("open", "sent", "settled", "presumed", "void"):
            hold = other.hold(hold_id)
            assert hold is not None
            assert found[hold_id] == whole_row(hold)
