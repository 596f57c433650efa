"""The tables of a file follow its journal later: nobody may ever see that."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Generator
from contextlib import closing
from pathlib import Path

import pytest

from agentbudget.errors import BudgetExceeded, HoldConflict, SchemaMismatch
from agentbudget.ledger import Ledger
from agentbudget.ledger.sqlite import SqliteStore
from agentbudget.ledger.tail import LONGEST
from agentbudget.money import Amount, Budget

ONE = Amount(calls=1)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.db"


@pytest.fixture
def ledger(path: Path) -> Generator[Ledger]:
    """A ledger whose tail has some holds: two settled, one of them with another inside, one sent, one void."""
    with Ledger(SqliteStore(path)) as ledger:
        ledger.account("org", limit=Budget(calls=100), windows={"day": Budget(calls=50)})
        ledger.account("a", parent="org")
        for n in range(40):  # until it takes itself to be alone
            ledger.reserve(f"warm-{n}", Amount(), accounts=["a"]).settle()
        ledger.reserve("plain", Amount(calls=2), accounts=["a"], tag="t", meta={"skill": "s"}).settle(
            ONE, detail={"x": 1}
        )
        ledger.reserve("step", Amount(calls=5), accounts=["a"], tag="t")
        ledger.reserve("call", Amount(calls=2), within="step").mark_sent()
        ledger.settle("call", Amount(calls=3))
        ledger.settle("step")
        ledger.reserve("sent", Amount(calls=2), accounts=["a"]).mark_sent()
        ledger.extend("sent", Amount(calls=4))
        ledger.reduce("sent", Amount(calls=3))
        ledger.reserve("void", ONE, accounts=["a"]).void()
        yield ledger


def asked(path: Path, sql: str) -> int:
    with closing(sqlite3.connect(path)) as db:
        return db.execute(sql).fetchone()[0]


def behind(path: Path) -> int:
    return asked(path, "SELECT max(seq) FROM entries") - asked(path, "SELECT applied FROM head")


def everything(ledger: Ledger) -> list[object]:
    return [
        ledger.accounts(),
        ledger.accounts(prefix="o"),
        ledger.windows("org"),
        ledger.holds(),
        ledger.holds(state="open"),
        ledger.holds(prefix="s"),
        ledger.history("t"),
        ledger.history("t", 1),
        [ledger.hold(name) for name in ("plain", "step", "call", "sent", "void", "none")],
        ledger.entries(),
    ]


def test_the_tables_are_behind_and_what_is_read_is_not(ledger: Ledger, path: Path) -> None:
    assert behind(path) > 0
    org = ledger.balance("org")
    assert (org.posted.calls, org.held.calls) == (4, 3)
    assert [hold.id for hold in ledger.history("t")] == ["step", "plain"]
    assert ledger.verify().ok


def test_somebody_else_reads_the_same_as_after_the_tables_followed(ledger: Ledger, path: Path) -> None:
    with Ledger(SqliteStore(path)) as other:
        before = everything(other)
        assert before == everything(ledger)
        assert behind(path) > 0, "whoever reads never writes"
        ledger.account("b")  # brings the tables up to date
        ledger.account("c")
        assert behind(path) == 0
        after = everything(other)
        assert after[2:9] == before[2:9]
        assert other.verify().ok


def test_what_a_writer_left_behind_is_brought_up_by_the_next(ledger: Ledger, path: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.db"
    for suffix in ("", "-wal"):  # as kill -9 leaves them
        shutil.copy(f"{path}{suffix}", f"{copy}{suffix}")
    with Ledger(SqliteStore(copy)) as next_one:
        assert everything(next_one) == everything(ledger)
        next_one.settle("sent", ONE)
        assert behind(copy) == 0
        assert next_one.balance("org").posted.calls == 5
        assert next_one.verify().ok


def test_the_tail_stays_short(ledger: Ledger, path: Path) -> None:
    for n in range(2 * LONGEST):
        ledger.reserve(f"more-{n}", Amount(), accounts=["a"])
        assert behind(path) <= LONGEST


def test_two_who_write_in_turn_see_each_others_holds(ledger: Ledger, path: Path) -> None:
    with Ledger(SqliteStore(path)) as other:
        for n in range(3 * LONGEST):
            mine, theirs = (ledger, other) if n % 3 else (other, ledger)
            mine.reserve(f"shared-{n}", ONE, accounts=["a"])
            theirs.mark_sent(f"shared-{n}")
            mine.settle(f"shared-{n}", Amount(), detail={"n": n})
        assert everything(ledger) == everything(other)
        assert ledger.verify().ok


def test_a_refusal_rests_on_how_it_is_now(ledger: Ledger, path: Path) -> None:
    ledger.reserve("all", Amount(calls=43), accounts=["a"])  # the rest of the day
    with pytest.raises(BudgetExceeded):
        ledger.reserve("no", ONE, accounts=["a"])
    with Ledger(SqliteStore(path)) as other:
        other.void("all")
    assert not ledger.reserve("no", ONE, accounts=["a"]).replayed


def test_an_admission_rests_on_how_it_is_now(ledger: Ledger, path: Path) -> None:
    with Ledger(SqliteStore(path)) as other:
        other.reserve("all", Amount(calls=43), accounts=["a"])
    with pytest.raises(BudgetExceeded):
        ledger.reserve("no", ONE, accounts=["a"])


def test_an_id_is_known_however_long_ago_it_was_used(ledger: Ledger) -> None:
    for n in range(LONGEST):
        ledger.reserve(f"more-{n}", Amount(), accounts=["a"]).settle()
    again = ledger.reserve("plain", Amount(calls=2), accounts=["a"])
    assert (again.replayed, again.record.settled) == (True, ONE)
    with pytest.raises(HoldConflict):
        ledger.reserve("plain", ONE, accounts=["a"])
    for n in range(LONGEST):  # whatever the length of the tail, also where the tables are about to follow
        ledger.reserve(f"still-{n}", Amount(), accounts=["a"])
        assert ledger.reserve("plain", Amount(calls=2), accounts=["a"]).replayed
    assert ledger.verify().ok


def tamper(path: Path, statement: str) -> None:
    """Change what may not be changed."""
    with closing(sqlite3.connect(path)) as db:
        db.execute("DROP TRIGGER entries_are_immutable")
        db.execute(statement)
        db.commit()


def test_a_tail_that_was_changed_shows(ledger: Ledger, path: Path) -> None:
    tamper(path, "UPDATE entries SET kind = 'lapse' WHERE subject = 'void' AND kind = 'void'")
    with Ledger(SqliteStore(path)) as other:
        assert not other.verify().ok


def test_an_entry_that_does_not_say_whose_hold_it_made_is_named_wherever_it_is_met(ledger: Ledger, path: Path) -> None:
    tamper(path, "UPDATE entries SET owner = NULL WHERE subject = 'void' AND kind = 'reserve'")
    with Ledger(SqliteStore(path)) as other:
        for operation in (other.holds, lambda: other.account("new")):
            with pytest.raises(SchemaMismatch, match=r"cannot be read .*has no owner.*agentbudget ledger verify"):
                operation()
        assert not other.verify().ok
    with pytest.raises(SchemaMismatch, match="has no owner"):
        Ledger.open(path)


def changes(ledger: Ledger, store: SqliteStore) -> list[str]:
    """What a reservation and its settlement on `a` send to change the file."""
    said: list[str] = []
    db = store.write()._connected()  # pyright: ignore[reportPrivateUsage] # listened to, not changed
    db.set_trace_callback(said.append)
    ledger.reserve(f"listened/{len(ledger.holds())}", ONE, accounts=["a"]).settle(ONE)
    db.set_trace_callback(None)
    return [sql.split()[0] for sql in said if not sql.startswith("SELECT")]


@pytest.mark.parametrize("windows", [{}, {"hour": Budget(calls=50), "1h": Budget(calls=50)}])
def test_a_reservation_is_one_statement_in_windows_too(path: Path, windows: dict[str, Budget]) -> None:
    store = SqliteStore(path)
    with Ledger(store) as ledger:
        ledger.account("a", windows=windows)
        for n in range(40):  # until it takes itself to be alone
            ledger.reserve(f"warm-{n}", Amount(), accounts=["a"]).settle()
        assert changes(ledger, store) == ["INSERT", "INSERT"]


def test_a_window_that_is_kept_in_mind_counts_what_others_spent(path: Path) -> None:
    with Ledger(SqliteStore(path)) as mine, Ledger(SqliteStore(path)) as yours:
        mine.account("a", windows={"1h": Budget(calls=2 * LONGEST)})
        for n in range(LONGEST):  # each brings the tables up now and then
            mine.reserve(f"mine-{n}", ONE, accounts=["a"]).settle(ONE)
            yours.reserve(f"yours-{n}", ONE, accounts=["a"]).settle(ONE)
        for n, either in enumerate((mine, yours)):
            with pytest.raises(BudgetExceeded):
                either.reserve(f"more-{n}", ONE, accounts=["a"])
        assert mine.verify().ok


def test_a_correction_reaches_a_hold_that_another_brought_into_the_tables(ledger: Ledger, path: Path) -> None:
    ledger.account("b")
    ledger.reserve("outer", Amount(calls=5), accounts=["b"])
    ledger.reserve("inner", Amount(calls=2), within="outer").mark_sent()
    ledger.presume("inner")
    ledger.settle("outer")
    with Ledger(SqliteStore(path)) as another:
        another.heartbeat()  # writes no entry, and brings the tables up
    ledger.settle("inner", ONE)
    found = ledger.hold("outer")
    assert found is not None
    assert (found.spent, found.settled) == (ONE, ONE)
    assert ledger.verify().ok


def test_an_extension_in_a_rolling_time_is_an_entry_like_others(path: Path) -> None:
    with Ledger(SqliteStore(path)) as ledger:
        ledger.account("a", windows={"1h": Budget(calls=60)})
        for n in range(40):  # until it takes itself to be alone
            ledger.reserve(f"warm-{n}", ONE, accounts=["a"]).settle(ONE)
        first = ledger.reserve("first", ONE, accounts=["a"])
        first.extend(Amount(calls=2))  # from now on it knows what began so long before
        applied = asked(path, "SELECT applied FROM head")
        for n in range(3, 8):
            first.extend(Amount(calls=n))
        with pytest.raises(BudgetExceeded) as refused:
            first.extend(Amount(calls=21))
        assert refused.value.window == "3600s"
        with pytest.raises(BudgetExceeded):
            ledger.reserve("second", Amount(calls=14), accounts=["a"])
        assert asked(path, "SELECT applied FROM head") == applied
        assert ledger.verify().ok
