"""Whatever is changed behind the ledger's back in a file shows in `verify`, which never fails itself."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from agentbudget.errors import SchemaMismatch, StoreUnavailable
from agentbudget.ledger import Ledger
from agentbudget.ledger.sqlite import SqliteStore
from agentbudget.money import Amount, Budget


def write(path: Path) -> None:
    with Ledger.open(path) as ledger:
        ledger.account("org", limit=Budget(usd="1"), windows={"day": Budget(calls=9)})
        ledger.account("run/1", parent="org")
        ledger.top_up("org", Budget(usd="1"), topup_id="t")
        ledger.freeze("org", reason="stop")
        ledger.unfreeze("org")
        with ledger.reserve("step", Amount(9), accounts=["run/1"], meta={"skill": "x"}) as step:
            call = ledger.reserve("call", Amount(5), within="step")
            call.mark_sent()
            call.presume()
            step.extend(Amount(10))
        call.settle(Amount(4), detail={"seconds": 1})
        assert ledger.verify().ok


def problems(path: Path, *tampering: str) -> tuple[str, ...]:
    raw = sqlite3.connect(path)
    for statement in ("DROP TRIGGER entries_are_immutable", "DROP TRIGGER entries_stay", *tampering):
        raw.execute(statement)
    raw.commit()
    raw.close()
    ledger = Ledger(SqliteStore(path))
    found = ledger.verify().problems
    ledger.close()
    return found


def test_what_was_not_changed_verifies(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    write(path)
    assert problems(path) == ()


COLUMNS = ("at_ns = at_ns + 1", "subject = 'x'", "held_usd = 7", "posted_calls = 7", "hash = x'00'")
TEXTS = ("kind", "targets", "detail")
WRONG = ("", "x", "5", "null", "[]", "{}", '{"parent": 5}', '["org"]', '[["org"]]', "settle", "account", "limit")


@pytest.mark.parametrize("change", COLUMNS)
def test_every_column_of_every_entry_is_covered_by_its_hash(tmp_path: Path, change: str) -> None:
    write(tmp_path / "ledger.db")
    whole = (tmp_path / "ledger.db").read_bytes()
    for seq in range(1, 13):
        path = tmp_path / f"{seq}.db"
        path.write_bytes(whole)
        assert problems(path, f"UPDATE entries SET {change} WHERE seq = {seq}")


@pytest.mark.parametrize("column", TEXTS)
def test_what_cannot_be_read_is_named(tmp_path: Path, column: str) -> None:
    write(tmp_path / "ledger.db")
    whole = (tmp_path / "ledger.db").read_bytes()
    raw = sqlite3.connect(tmp_path / "ledger.db")
    (count,) = raw.execute("SELECT count(*) FROM entries").fetchone()
    told = dict(raw.execute(f"SELECT seq, {column} FROM entries").fetchall())
    raw.close()
    for number, wrong in enumerate(WRONG):
        seq = number % count + 1
        if told[seq] != wrong and (told[seq], wrong) != ("[]", "{}"):  # no names are no names
            path = tmp_path / f"{number}.db"
            path.write_bytes(whole)
            assert problems(path, f"UPDATE entries SET {column} = '{wrong}' WHERE seq = {seq}"), (seq, wrong)


@pytest.mark.parametrize(
    "tampering",
    [
        "DELETE FROM marks",
        "UPDATE marks SET seq = 1",
        "UPDATE accounts SET windows = 'x'",
        """UPDATE accounts SET windows = '{"fortnight": [1, 1, 1]}'""",
        "UPDATE accounts SET windows = '[]' WHERE name = 'org'",
        "UPDATE accounts SET parent = NULL",
        "UPDATE accounts SET posted_tokens = 1",
        "UPDATE holds SET state = 'paid'",
        "UPDATE holds SET state = 'open'",
        "UPDATE holds SET parent = NULL",
        "UPDATE holds SET number = number + 1 WHERE id = 'call'",
        "INSERT INTO accounts SELECT 'new', parent, 5, 5, 5, windows, 0, 0, 0, 0, 0, 0, NULL FROM accounts LIMIT 1",
        "DELETE FROM entries WHERE seq = 5",
        "DELETE FROM entries",
        "DELETE FROM periods",
        "UPDATE periods SET start_ns = 5",
    ],
)
def test_what_was_changed_in_other_tables_shows(tmp_path: Path, tampering: str) -> None:
    path = tmp_path / "ledger.db"
    write(path)
    assert problems(path, tampering)


def test_the_last_entries_cannot_go_without_a_trace(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    write(path)
    assert problems(path, "DELETE FROM entries WHERE seq = (SELECT max(seq) FROM entries)")


@pytest.mark.parametrize("tampering", ["UPDATE entries SET detail = '{5'", "UPDATE accounts SET windows = '{5'"])
def test_a_row_that_cannot_be_read_is_named_wherever_it_is_met(tmp_path: Path, tampering: str) -> None:
    path = tmp_path / "ledger.db"
    write(path)
    raw = sqlite3.connect(path)
    for statement in ("DROP TRIGGER entries_are_immutable", tampering):
        raw.execute(statement)
    raw.commit()
    raw.close()
    with Ledger(SqliteStore(path)) as ledger:
        with pytest.raises(SchemaMismatch, match=r"ledger\.db cannot be read .*agentbudget ledger verify"):
            _ = ledger.holds(), ledger.accounts()


def test_nothing_is_admitted_on_an_account_that_cannot_be_read(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    write(path)
    raw = sqlite3.connect(path)
    raw.execute("UPDATE accounts SET windows = '{5'")
    raw.commit()
    raw.close()
    with Ledger(SqliteStore(path)) as ledger, pytest.raises(SchemaMismatch, match="cannot be read"):
        ledger.reserve("new", Amount(1), accounts=["run/1"])


def test_a_damaged_file_is_named_though_what_sqlite_says_of_it_is_no_text(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    write(path)
    path.write_bytes(path.read_bytes().replace(b"CREATE TRIGGER", b"CREATE \xd4RIGGER"))
    with pytest.raises(StoreUnavailable, match="it is damaged"):
        Ledger.open(path)
