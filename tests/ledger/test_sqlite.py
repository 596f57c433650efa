"""What only the file store can get wrong."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from agentbudget.errors import BudgetExceeded, SchemaMismatch, StoreBusy, StoreUnavailable
from agentbudget.ledger import Ledger
from agentbudget.ledger.sqlite import SqliteStore
from agentbudget.money import Amount, Budget


def test_balances_survive_reopening(tmp_path: Path) -> None:
    with Ledger.open(tmp_path / "ledger.db") as ledger:
        ledger.account("run/1", limit=Budget(usd="0.05", tokens=10))
        ledger.reserve("a", Amount(5, 5), accounts=["run/1"], meta={"skill": "answer"}).settle(Amount(4, 3))
    with Ledger.open(tmp_path / "ledger.db") as ledger:
        assert ledger.balance("run/1").posted == Amount(4, 3)
        assert ledger.verify().ok


def test_threads_may_make_a_file_at_once(tmp_path: Path) -> None:
    at_once = threading.Barrier(4)

    def make(path: Path) -> str:
        at_once.wait(60)
        with Ledger.open(path) as ledger:
            return ledger.account("a", limit=Budget(tokens=1)).name

    with ThreadPoolExecutor(4) as pool:
        for number in range(100):
            assert list(pool.map(make, [tmp_path / f"{number}.db"] * 4)) == ["a"] * 4


def test_another_programs_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    other = sqlite3.connect(path)
    other.execute("CREATE TABLE t (x)")
    other.close()
    with pytest.raises(SchemaMismatch, match="another program"):
        Ledger.open(path)


def test_a_newer_schema_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    Ledger.open(path).close()
    raw = sqlite3.connect(path)
    raw.execute("PRAGMA user_version = 99")
    raw.close()
    with pytest.raises(SchemaMismatch, match="schema 99"):
        Ledger.open(path)


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    path.write_bytes(b"not a database, only words" * 100)
    with pytest.raises(SchemaMismatch, match="not an SQLite database"):
        Ledger.open(path)


def test_a_path_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(StoreUnavailable, match="nothing was admitted"):
        Ledger.open(tmp_path / "file" / "ledger.db")


def test_a_locked_file_fails_closed(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    ledger = Ledger(SqliteStore(path, busy_timeout_s=0.05))
    ledger.account("run/1")
    blocker = sqlite3.connect(path, isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreBusy, match="another process"):
        ledger.reserve("a", Amount(1), accounts=["run/1"])
    blocker.execute("ROLLBACK")
    assert ledger.hold("a") is None


def test_tampering_shows(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    with Ledger.open(path) as ledger:
        ledger.account("run/1")
        ledger.reserve("a", Amount(5), accounts=["run/1"]).settle(Amount(4))
    raw = sqlite3.connect(path)
    with pytest.raises(sqlite3.IntegrityError, match="immutable"):
        raw.execute("UPDATE entries SET posted_usd = 0")
    raw.execute("DROP TRIGGER entries_are_immutable")
    raw.execute("UPDATE entries SET posted_usd = 1 WHERE kind = 'settle'")
    raw.execute("UPDATE accounts SET held_usd = 9")
    raw.commit()
    raw.close()
    with Ledger.open(path) as ledger:
        problems = ledger.verify().problems
    assert any("does not match its hash" in p for p in problems)
    assert any("run/1" in p for p in problems)


WORKER = """
import sys
from agentbudget.errors import BudgetExceeded
from agentbudget.ledger import Ledger
from agentbudget.money import Amount
ledger = Ledger.open(sys.argv[1])
won = 0
for i in range(50):
    try:
        ledger.reserve(f"{sys.argv[2]}-{i}", Amount(usd_nano=10), accounts=["run/1"]).settle(Amount(usd_nano=10))
        won += 1
    except BudgetExceeded:
        pass
print(won)
"""


def test_processes_together_never_overspend_and_never_refuse_what_fits(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    with Ledger.open(path) as ledger:
        ledger.account("run/1", limit=Budget(usd="0.000001"))  # room for 100 of the 200 calls
        workers = [
            subprocess.Popen([sys.executable, "-c", WORKER, str(path), str(n)], stdout=subprocess.PIPE)
            for n in range(4)
        ]
        won = sum(int(w.communicate()[0]) for w in workers)
        assert won == 100
        assert ledger.balance("run/1").posted.usd_nano == 1000
        assert ledger.verify().ok


def test_threads_together_never_overspend(tmp_path: Path) -> None:
    with Ledger.open(tmp_path / "ledger.db") as ledger:
        ledger.account("run/1", limit=Budget(tokens=10))
        won: list[int] = []

        def work(n: int) -> None:
            try:
                ledger.reserve(f"h{n}", Amount(tokens=1), accounts=["run/1"])
                won.append(n)
            except BudgetExceeded:
                return

        threads = [threading.Thread(target=work, args=(n,)) for n in range(50)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        assert len(won) == 10


@pytest.mark.parametrize(
    "tampering",
    [
        "UPDATE holds SET settled_usd = 1",
        "UPDATE holds SET usd = usd * 9",
        "UPDATE holds SET presumed = 1",
        "UPDATE holds SET sent = 1",
        "UPDATE holds SET spent_usd = 1",
        "UPDATE holds SET children = 2",
        "UPDATE holds SET closed = 1",
        "UPDATE accounts SET windows = '{}'",
        "UPDATE accounts SET frozen = 'no'",
        "UPDATE periods SET posted_usd = 0",
        "DELETE FROM periods",
        "UPDATE accounts SET limit_usd = 99",
        "DELETE FROM holds",
        "DELETE FROM accounts",
    ],
)
def test_what_the_journal_does_not_say_shows(tmp_path: Path, tampering: str) -> None:
    path = tmp_path / "ledger.db"
    with Ledger.open(path) as ledger:
        ledger.account("run/1", limit=Budget(usd="1"), windows={"day": Budget(calls=9)})
        hold = ledger.reserve("a", Amount(5), accounts=["run/1"], meta={"skill": "x"})
        hold.settle(Amount(4), detail={"seconds": 1})
    raw = sqlite3.connect(path)
    raw.execute(tampering)
    raw.commit()
    raw.close()
    with Ledger.open(path) as ledger:
        assert not ledger.verify().ok


def test_a_file_that_a_crash_left_half_written_is_recovered(tmp_path: Path) -> None:
    whole, left = tmp_path / "ledger.db", tmp_path / "left.db"
    with Ledger.open(whole) as ledger:
        ledger.account("run/1")
    raw = sqlite3.connect(whole, isolation_level=None)
    raw.execute("PRAGMA journal_mode = DELETE")  # as it is until a new file is given its log
    raw.execute("PRAGMA cache_size = 1")
    raw.execute("BEGIN")
    raw.executemany("INSERT INTO marks VALUES (?, 1)", [(f"{number:0500}",) for number in range(200)])
    for suffix in ("", "-journal"):
        left.with_name(left.name + suffix).write_bytes(whole.with_name(whole.name + suffix).read_bytes())
    raw.close()
    with Ledger.open(left) as ledger:
        assert ledger.verify().ok
        with ledger._store.read() as tx:  # pyright: ignore[reportPrivateUsage]
            assert tx.mark("0" * 500) is None
