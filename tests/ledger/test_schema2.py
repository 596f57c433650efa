"""A file of schema 2 goes on in today's, with a copy kept."""

from __future__ import annotations

import sqlite3
import threading
from contextlib import closing, suppress
from pathlib import Path

import pytest

from agentbudget.errors import StoreBusy
from agentbudget.ledger import Ledger
from agentbudget.ledger.sqlite import VERSION, SqliteStore
from agentbudget.money import Amount

WRITTEN = Path(__file__).parent / "data" / "schema2.sql"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file as a ledger of schema 2 left it; see ``data/schema2.py`` for what happened in it."""
    path = tmp_path / "ledger.db"
    with closing(sqlite3.connect(path)) as db:
        db.executescript(WRITTEN.read_text(encoding="utf-8"))
        db.execute("PRAGMA journal_mode = WAL")
    return path


def entries(path: Path) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(path)) as db:
        return db.execute("SELECT seq, kind, subject, hash FROM entries ORDER BY seq").fetchall()


def test_the_journal_stays_as_it_was_and_goes_on(path: Path) -> None:
    before = entries(path)
    with Ledger(SqliteStore(path)) as ledger:
        verification = ledger.verify()
        assert verification.ok, verification.problems
        assert (verification.accounts, verification.holds) == (2, 6)
        assert [hold.owner for hold in ledger.holds(state="open")] == ["elsewhere:42:0a1b2c3d"] * 2
        assert ledger.settle("lost", Amount(7)).state == "settled"
        ledger.settle("open/1", Amount(200, 20, 1))
        ledger.settle("open")
        ledger.reserve("new", Amount(1), accounts=["user/42"]).settle(Amount(1))
        assert ledger.verify().ok
    assert entries(path)[: len(before)] == before


def test_the_old_file_is_kept_beside_it(path: Path) -> None:
    before = entries(path)
    for _ in range(2):
        Ledger(SqliteStore(path)).close()
    (kept,) = path.parent.glob("*.bak*")
    assert kept.name == "ledger.db.v2.bak"
    assert entries(kept) == before
    versions = [asked(found) for found in (kept, path)]
    assert versions == [2, VERSION]


def test_it_stays_as_it_is_while_a_process_that_may_be_of_the_older_version_has_it_open(path: Path) -> None:
    before = entries(path)
    with closing(sqlite3.connect(path)) as older:
        older.execute("SELECT count(*) FROM entries").fetchone()
        with pytest.raises(StoreBusy, match="older version, and another process has it open"):
            SqliteStore(path, busy_timeout_s=0.05)
        assert asked(path) == 2
        assert [found.name for found in path.parent.glob("*.bak*")] == []
        older.execute("INSERT INTO leases VALUES ('elsewhere', 1)")  # it goes on
    assert entries(path) == before
    with Ledger(SqliteStore(path)) as ledger:
        assert ledger.verify().ok


def test_nobody_opens_it_as_it_was_while_it_is_brought_here(path: Path) -> None:
    upgrade = threading.Thread(target=lambda: Ledger(SqliteStore(path)).close())
    upgrade.start()
    while upgrade.is_alive() and not list(path.parent.glob("*.partial")):
        pass
    seen = None
    with closing(sqlite3.connect(path, timeout=0)) as older, suppress(sqlite3.OperationalError):
        (seen,) = older.execute("PRAGMA user_version").fetchone()
    upgrade.join()
    assert seen in (None, VERSION)
    assert asked(path) == VERSION


def test_many_who_open_it_at_once_all_find_it_in_todays_schema(path: Path) -> None:
    failed: list[Exception] = []

    def open_it() -> None:
        try:
            with Ledger(SqliteStore(path, busy_timeout_s=60)) as ledger:
                ledger.account("run/1")
        except Exception as error:  # noqa: BLE001 # told below
            failed.append(error)

    threads = [threading.Thread(target=open_it) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    with Ledger(SqliteStore(path)) as ledger:
        assert ledger.verify().ok
    assert len(list(path.parent.glob("*.bak*"))) == 1


def asked(path: Path) -> int:
    with closing(sqlite3.connect(path)) as db:
        return db.execute("PRAGMA user_version").fetchone()[0]
