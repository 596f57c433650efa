"""A ledger that agentbudget 0.1.0 wrote goes on in today's schema, with nothing lost."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from agentbudget.errors import SchemaMismatch
from agentbudget.ledger import Ledger
from agentbudget.ledger.sqlite import SqliteStore
from agentbudget.money import Amount, Budget

WRITTEN = Path(__file__).parent / "data" / "schema1.sql"
LAST_HASH = "84061b86993f04be457e5153c79c4c6d"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file as agentbudget 0.1.0 left it; see ``data/schema1.py`` for what happened in it."""
    path = tmp_path / "ledger.db"
    with closing(sqlite3.connect(path)) as db:
        db.executescript(WRITTEN.read_text(encoding="utf-8"))
        db.execute("PRAGMA journal_mode = WAL")
    return path


def raw(path: Path, sql: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(path)) as db:
        found = db.execute(sql).fetchall()
        db.commit()
        return found


def test_the_books_prove_and_go_on(path: Path) -> None:
    with Ledger(SqliteStore(path)) as ledger:
        verification = ledger.verify()
        assert verification.ok, verification.problems
        assert (verification.accounts, verification.holds) == (3, 11)
        ledger.settle("run-4/open/1", Amount(200, 20, 1))
        ledger.settle("run-4/open")
        ledger.reserve("new", Amount(1), accounts=["user/42"]).settle(Amount(1))
        assert ledger.verify().ok


def test_balances_and_limits_come_over(path: Path) -> None:
    columns = "name, posted_usd, posted_tokens, posted_calls, held_usd, held_tokens, held_calls"
    before = raw(path, f"SELECT {columns} FROM accounts ORDER BY name")
    with Ledger(SqliteStore(path)) as ledger:
        found = ledger.accounts()
        assert [(a.name, *a.posted_units, *a.held_units) for a in found] == before
        acme, user = ledger.balance("org/acme"), ledger.balance("user/42")
        assert (acme.limit, acme.parent) == (Budget(usd="12", tokens=200_000), None)
        assert (user.limit, user.parent) == (Budget(usd="5"), "org/acme")


def test_holds_come_over_with_all_that_was_said_of_them(path: Path) -> None:
    with Ledger(SqliteStore(path)) as ledger:
        step, draft = ledger.hold("run-1/answer"), ledger.hold("run-1/answer/1")
        assert step is not None
        assert draft is not None
        assert (step.state, step.settled, step.tag) == ("settled", Amount(6_000, 1_000, 2), "step|answer")
        assert step.meta == {"kind": "step", "skill": "answer", "estimated": {"usd_nano": 7}}
        assert step.detail == {"verdict": "accepted"}
        assert draft.detail == {"seconds": 0.25, "score": "NaN", "text": "“quoted”|pipe"}
        assert (draft.parent, draft.sent, draft.owner) == ("run-1/answer", True, "elsewhere:42:0a1b2c3d")
        lost, guessed, still = ledger.hold("run-2/lost"), ledger.hold("run-2/guessed/1"), ledger.hold("run-4/open")
        assert lost is not None
        assert guessed is not None
        assert still is not None
        assert (lost.presumed, guessed.presumed, guessed.settled) == (True, False, Amount(100, 10, 1))
        assert (still.state, still.children, still.reserved) == ("open", 2, Amount(600, 60, 2))
        assert [hold.id for hold in ledger.history("call|draft")] == ["run-1/answer/1"]


def test_open_holds_keep_their_owners_lease(path: Path) -> None:
    with Ledger(SqliteStore(path), clock=lambda: 1_760_000_103_000_000_000) as ledger:
        assert ledger.sweep() == []
    with Ledger(SqliteStore(path), clock=lambda: 1_760_000_104_000_000_000) as ledger:
        ended = {hold.id: hold.state for hold in ledger.sweep()}
    assert ended["run-4/open/1"] == "lapsed"
    assert ended["run-4/open/2"] == "voided"


def test_the_journal_says_which_chain_it_goes_on_from(path: Path) -> None:
    with Ledger(SqliteStore(path)) as ledger:
        first = ledger.entries(limit=1)[0]
    assert (first.kind, first.detail) == ("migrate", {"from": 1, "entries": 27, "hash": LAST_HASH})


def test_the_old_file_is_kept_beside_the_new_one(path: Path) -> None:
    before = raw(path, "SELECT * FROM entries")
    Ledger.open(path).close()
    Ledger.open(path).close()
    kept = [found.name for found in path.parent.iterdir() if "bak" in found.name]
    assert kept == ["ledger.db.v1.bak"]
    assert raw(path.parent / kept[0], "SELECT * FROM entries") == before


def test_an_older_copy_is_not_overwritten(path: Path) -> None:
    older = path.with_name("ledger.db.v1.bak")
    older.write_text("mine")
    Ledger.open(path).close()
    assert older.read_text() == "mine"
    assert path.with_name("ledger.db.v1.bak.2").exists()


@pytest.mark.parametrize(
    ("tampering", "said"),
    [
        ("UPDATE entries SET posted_usd = 1 WHERE seq = 12", "entry 12 does not match its hash"),
        ("DELETE FROM entries WHERE seq = 3", "entry 4 stands where 3 should"),
        ("UPDATE accounts SET posted_usd = 1 WHERE name = 'user/42'", "user/42: posted is"),
        ("DELETE FROM holds WHERE id = 'run-2/lost'", "run-2/lost: the journal has it"),
    ],
)
def test_books_that_do_not_prove_are_left_alone(path: Path, tampering: str, said: str) -> None:
    for trigger in ("entries_are_immutable", "entries_stay"):
        raw(path, f"DROP TRIGGER {trigger}")
    raw(path, tampering)
    before = raw(path, "SELECT * FROM holds")
    with pytest.raises(SchemaMismatch, match=said):
        Ledger.open(path)
    assert raw(path, "SELECT * FROM holds") == before
    assert raw(path, "PRAGMA user_version") == [(1,)]
