"""``agentbudget ledger``: what it prints for people and for programs, and what bad input gets."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from io import StringIO
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from agentbudget.cli import cli, tables
from agentbudget.cli.tables import accounts_table
from agentbudget.errors import (
    AccountConflict,
    ExportError,
    InvalidAmount,
    InvalidArgument,
    SchemaMismatch,
    StoreUnavailable,
    UnknownAccount,
    UnknownPrice,
    UnknownRun,
)
from agentbudget.ledger import Ledger, verify_export
from agentbudget.ledger.core import open_store
from agentbudget.money import Amount, Budget
from agentbudget.testing import ManualClock


def ledger(*arguments: str | Path) -> Result:
    """A command, in this process."""
    return CliRunner().invoke(cli, ["ledger", *map(str, arguments)], standalone_mode=False)


def said(*arguments: str | Path) -> str:
    done = ledger(*arguments)
    assert done.exception is None, done.exception
    return done.output


def data(*arguments: str | Path) -> Any:
    return json.loads(said(*arguments, "--json"))


def home_ledger() -> Path:
    return Path(os.environ["AGENTBUDGET_HOME"]) / "ledger.db"


@pytest.fixture
def books() -> Path:
    """A ledger with a tree of accounts, and holds in every state, one of a process that is gone."""
    path = home_ledger()
    with Ledger.open(path) as opened:
        opened.account("org/acme", limit=Budget(usd="10", tokens=1_000_000))
        opened.account("user/42", parent="org/acme", windows={"day@Europe/Berlin": Budget(usd="1", calls=9)})
        opened.account("user/43", parent="org/acme", windows={"24h": Budget(calls=100)})
        opened.account("team/[red]")
        opened.reserve("run-1/a", Amount(20_000_000, 3_000, 1), accounts=["user/42"]).settle(
            Amount(13_000_000, 1_100, 1)
        )
        lost = opened.reserve("run-1/b", Amount(5_000_000, 100, 1), accounts=["user/42"])
        lost.mark_sent()
        lost.presume(detail={"error": "OutcomeUnknown: timeout"})
        opened.reserve("run-1/c", Amount(1), accounts=["user/43"]).void(reason="not needed")
    with Ledger(open_store(path), owner=gone()) as other:
        other.reserve("run-2/unsent", Amount(7_000_000), accounts=["user/43"])
        other.reserve("run-2/sent", Amount(9_000_000), accounts=["user/43"]).mark_sent()
    return path


def gone() -> str:
    """An owner whose process has ended."""
    script = "from agentbudget.ledger.owners import new_owner; print(new_owner())"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return done.stdout.strip()


# --- accounts


@pytest.mark.parametrize(
    ("command", "told"),
    [("accounts", "no accounts"), ("accounts nobody", "no account 'nobody…'"), ("holds --state presumed", "no holds")],
)
def test_where_there_is_nothing_it_says_so(command: str, told: str) -> None:
    done = ledger(*command.split())
    assert (done.exit_code, done.output) == (0, f"{told}\n")


def test_accounts_shows_limits_balances_and_windows_in_units(books: Path) -> None:
    shown = said("accounts")
    for words in ("org/acme", "$10.00", "1,000,000", "day@Europe/Berlin", "the last 1 d", "team/[red]", "CE"):
        assert words in shown
    row = next(line for line in shown.splitlines() if "org/acme" in line)
    assert row.replace(" ", "") == "│org/acme│total│USD│$10.00│$0.018│$0.016│$9.97│"


def test_accounts_for_programs_says_everything_in_every_unit(books: Path) -> None:
    before = datetime.now(UTC)
    rows = {row["name"]: row for row in data("accounts", "user/")}
    assert list(rows) == ["user/42", "user/43"]
    user = rows["user/42"]
    assert (user["parent"], user["frozen"]) == ("org/acme", None)
    assert user["posted"] == {"usd_nano": 18_000_000, "tokens": 1_200, "calls": 2}
    assert user["limit"] == user["available"] == {"usd_nano": None, "tokens": None, "calls": None}
    (window,) = user["windows"]
    assert window["window"] == "day@Europe/Berlin"
    assert window["available"] == {"usd_nano": 982_000_000, "tokens": None, "calls": 7}
    assert datetime.fromisoformat(window["resets"]) > before


@pytest.mark.parametrize(
    ("obeyed", "written"), [("\x1b", "\\x1b"), ("\r", "\\x0d"), ("\x9b", "\\x9b"), ("\u202e", "\\u202e")]
)
def test_what_a_terminal_would_obey_is_written_out(books: Path, obeyed: str, written: str) -> None:
    name = f"u{obeyed}2J"
    with Ledger.open(books) as opened:
        opened.account(name, limit=Budget(calls=0))
        opened.freeze(name, reason=name)
        opened.reserve(name, Amount(), accounts=["org/acme"])
    for shown in (said("accounts", "u"), said("holds"), said("entries"), said("limit", name)):
        assert obeyed not in shown
        assert f"u{written}2J" in shown


def test_a_tree_shows_children_below_their_parents(books: Path) -> None:
    names = [line.split("│")[1].strip() for line in said("accounts", "--tree").splitlines() if "│" in line]
    assert [name for name in names if "/" in name] == ["org/acme", "├ user/42", "└ user/43", "team/[red]"]
    assert "├" not in said("accounts")


def test_a_tree_may_be_deeper_than_python_calls_itself() -> None:
    depth = sys.getrecursionlimit() + 1
    with Ledger.open("memory:") as opened:
        for number in range(depth):
            opened.account(f"{number}", parent=f"{number - 1}" if number else None)
        table = accounts_table(opened.accounts(), {}, tree=True)
    last = list(table.columns[0].cells)[-1]
    assert str(last) == f"{'  ' * (depth - 2)}└ {depth - 1}"


def test_accounts_have_their_names_on_a_narrow_terminal(books: Path) -> None:
    pty = pytest.importorskip("pty", reason="this system has no pseudo-terminals")
    here, there = pty.openpty()
    command = [sys.executable, "-m", "agentbudget", "ledger", "accounts"]
    child = subprocess.Popen(command, stdout=there, env=os.environ | {"COLUMNS": "40", "NO_COLOR": "1"})
    os.close(there)
    shown = b""
    with contextlib.suppress(OSError):  # whoever reads on when all is said
        while more := os.read(here, 4096):
            shown += more
    os.close(here)
    assert child.wait(300) == 0
    assert [words for words in ("org/acme", "team/[red]", "1,000,000") if words not in shown.decode()] == []


def test_accounts_as_they_stood_at_a_moment() -> None:
    clock = ManualClock(1_790_000_000_000_000_000)
    with Ledger(open_store(home_ledger()), clock=clock) as opened:
        opened.account("user/42", limit=Budget(usd="1"), windows={"day": Budget(usd="0.5")})
        opened.reserve("a", Amount(5_000), accounts=["user/42"])
        clock.advance(60)
        opened.settle("a", Amount(3_000))
        opened.account("user/43")
    then = datetime.fromtimestamp(clock.now_ns / 1e9 - 30, UTC).isoformat().replace("+00:00", "Z")
    (was,) = data("accounts", "--at", then)
    assert (was["name"], was["held"]["usd_nano"], was["posted"]["usd_nano"]) == ("user/42", 5_000, 0)
    (day,) = was["windows"]
    assert (day["held"]["usd_nano"], day["posted"]["usd_nano"]) == (5_000, 0)
    now, _ = data("accounts")
    assert (now["held"]["usd_nano"], now["posted"]["usd_nano"]) == (0, 3_000)
    assert data("accounts", "--at", "2020-01-01T00:00+01:00") == []


@pytest.mark.parametrize("moment", ["2026-11-01", "2026-11-01T00:00", "yesterday", ""])
def test_a_moment_without_a_time_zone_is_refused(moment: str) -> None:
    done = ledger("accounts", "--at", moment)
    assert isinstance(done.exception, click.BadParameter)
    assert "2026-11-01T00:00Z" in done.exception.format_message()


# --- limits, top-ups, freezes


def test_setting_a_limit_opens_a_new_account_and_keeps_the_other_units() -> None:
    assert data("limit", "user/42", "--usd", "2.50")["limit"] == {
        "usd_nano": 2_500_000_000,
        "tokens": None,
        "calls": None,
    }
    changed = data("limit", "user/42", "--tokens", "1000")
    assert changed["limit"] == {"usd_nano": 2_500_000_000, "tokens": 1000, "calls": None}
    assert data("limit", "user/42") == changed
    assert data("limit", "user/42", "--none", "--calls", "5")["limit"] == {"usd_nano": None, "tokens": None, "calls": 5}
    assert data("limit", "user/42", "--none")["limit"] == {"usd_nano": None, "tokens": None, "calls": None}


def test_a_limit_within_a_window_is_set_and_taken_away() -> None:
    said("limit", "org", "--usd", "10")
    day = ("limit", "user/42", "--window", "day@Europe/Berlin")
    (window,) = data(*day, "--usd", "1", "--parent", "org")["windows"]
    assert (window["window"], window["limit"]["usd_nano"]) == ("day@Europe/Berlin", 10**9)
    (window,) = data(*day, "--calls", "3")["windows"]
    assert (window["limit"]["usd_nano"], window["limit"]["calls"]) == (10**9, 3)
    with Ledger.open(home_ledger()) as opened:
        assert opened.balance("user/42").parent == "org"
        assert opened.verify().ok
    assert data(*day, "--none")["windows"] == []


def test_a_top_up_happens_once() -> None:
    said("limit", "user/42", "--usd", "1")
    for _ in range(2):
        topped = data("topup", "user/42", "--usd", "5", "--id", "invoice-17")
        assert topped["limit"]["usd_nano"] == 6 * 10**9
    assert isinstance(ledger("topup", "user/42", "--usd", "6", "--id", "invoice-17").exception, AccountConflict)
    assert "say how much" in str(ledger("topup", "user/42", "--id", "invoice-18").exception)
    assert isinstance(ledger("topup", "user/42", "--usd", "6").exception, click.MissingParameter)


def test_a_frozen_account_says_why(books: Path) -> None:
    shown = said("freeze", "org/acme", "--reason", "[abuse] of the free tier")
    assert "[abuse]" in shown
    assert "frozen" in said("accounts")
    assert data("accounts", "org")[0]["frozen"] == "[abuse] of the free tier"
    assert data("unfreeze", "org/acme")["frozen"] is None


# --- holds


def test_holds_shows_what_is_open_and_whose_owner_is_gone_and_sweeps_nothing(books: Path) -> None:
    for _ in range(2):
        assert [hold["id"] for hold in data("holds")] == ["run-2/unsent", "run-2/sent"]
    shown = said("holds")
    assert "owner gone" in shown
    assert "open, sent" in shown
    assert "$0.007" in shown


def test_holds_by_state_and_prefix(books: Path) -> None:
    assert [hold["id"] for hold in data("holds", "--state", "presumed")] == ["run-1/b"]
    assert [hold["id"] for hold in data("holds", "run-1/", "--state", "all")] == ["run-1/a", "run-1/b", "run-1/c"]
    assert [hold["id"] for hold in data("holds", "--state", "all", "--last", "2")] == ["run-2/unsent", "run-2/sent"]
    (hold,) = data("holds", "run-1/a", "--state", "settled")
    assert hold["settled"] == {"usd_nano": 13_000_000, "tokens": 1_100, "calls": 1}
    assert "the newest 2 of 5" in said("holds", "--state", "all", "--last", "2")
    assert "presumed" in said("holds", "--state", "settled")


def test_sweep_resolves_once(books: Path) -> None:
    swept = data("sweep")
    assert [(hold["id"], hold["state"], hold["presumed"]) for hold in swept] == [
        ("run-2/unsent", "voided", False),
        ("run-2/sent", "lapsed", True),
    ]
    assert data("sweep") == []
    assert "0 holds resolved" in said("sweep")
    assert data("verify")["ok"] is True


# --- the journal


def test_entries_shows_the_last_ones_in_words(books: Path) -> None:
    shown = said("entries", "--last", "4")
    assert "+$0.007" in shown
    with Ledger(open_store(books)) as opened:
        numbers = [entry.seq for entry in opened.entries()]
    firsts = [line.split()[0] for line in shown.splitlines() if line.strip()]
    assert [int(first) for first in firsts if first.isdigit()] == numbers[-4:]
    for words in ("day@Europe/Berlin: $1.00, 9 calls", "under org/acme", "not needed", "presumed: OutcomeUnknown"):
        assert words in said("entries"), words


@pytest.mark.parametrize("width", [60, 80, 100, 140])
def test_entries_keep_every_word_and_number_on_a_narrow_terminal(books: Path, width: int) -> None:
    from rich.console import Console

    with Ledger(open_store(books)) as opened:
        entries = opened.entries()
    console = Console(file=StringIO(), width=width, color_system=None)
    with console.capture() as captured:
        console.print(tables.entries_table(entries, width=width))
    shown = captured.get()
    assert max(map(len, shown.splitlines())) <= width
    assert "…" not in shown
    for entry in entries:
        for amount in (entry.held, entry.posted):
            assert all(part in shown for part in tables.told(amount, signed=True).split(", "))


def test_entries_for_programs(books: Path) -> None:
    assert len(data("entries")) < 50
    assert [entry["seq"] for entry in data("entries", "--last", "2")] == [e["seq"] for e in data("entries")][-2:]
    assert [entry["seq"] for entry in data("entries", "--after", "3", "--limit", "2")] == [4, 5]
    assert [entry["seq"] for entry in data("entries", "--limit", "1")] == [data("entries")[-1]["seq"]]
    life = data("entries", "--subject", "run-1/b")
    assert [entry["kind"] for entry in life] == ["reserve", "sent", "settle"]
    assert life[-1]["posted"] == {"usd_nano": 5_000_000, "tokens": 100, "calls": 1}
    assert life[0]["at"].endswith("Z")


def test_the_default_is_the_last_fifty(books: Path) -> None:
    with Ledger(open_store(books)) as opened:
        for n in range(60):
            opened.account(f"more/{n}")
    assert [entry["subject"] for entry in data("entries")] == [f"more/{n}" for n in range(10, 60)]


def test_an_export_is_checked_without_the_ledger(books: Path, tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    told = data("export", path)
    assert (told["path"], told["head"]) == (str(path), verify_export(path).head)
    assert f"{told['entries']} entries" in said("export", path)
    books.unlink()
    assert data("verify", "--export", path, "--head", told["head"])["ok"] is True
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:-1]))
    cut = ledger("verify", "--export", path, "--head", told["head"], "--json")
    assert cut.exit_code == 1
    assert json.loads(cut.stdout)["ok"] is False
    assert "are missing" in ledger("verify", "--export", path, "--head", told["head"]).output
    assert isinstance(ledger("verify", "--head", told["head"]).exception, click.UsageError)


def test_reprice_shows_booked_beside_repriced(tmp_path: Path) -> None:
    with Ledger.open(home_ledger()) as opened:
        opened.account("run/r")
        for run, model in (("r", "openai:small"), ("r", "openai:[other]"), ("s", "openai:small")):
            hold = opened.reserve(
                f"{run}/{model}", Amount(9), accounts=["run/r"], meta={"model": model, "skill": "ask"}
            )
            hold.settle(Amount(1_000_000), detail={"usage": {"input_tokens": 1000, "output_tokens": 100}})
        opened.reserve("r/search", Amount(9), accounts=["run/r"]).settle(Amount(5_000_000))
    sheet = tmp_path / "prices.toml"
    sheet.write_text('["openai:small"]\ninput = 1\noutput = 10\n')
    shown = said("reprice", "--prices", sheet)
    for words in (
        "openai:small",
        "$0.002",
        "+$0.002 (+100 %)",
        "not priced: r/openai:[other]",
        "$0.005",
        "ask",
        "total",
    ):
        assert words in shown, shown
    told = data("reprice", "--prices", sheet, "--run", "r")
    assert told["total"] == {
        "name": "total",
        "calls": 2,
        "booked_usd_nano": 1_000_000,
        "repriced_usd_nano": 2_000_000,
        "unknown": 1,
        "unknown_usd_nano": 1_000_000,
    }
    assert [call["hold_id"] for call in told["unknown"]] == ["r/openai:[other]"]
    assert isinstance(ledger("reprice", "--prices", sheet, "--run", "nobody").exception, UnknownRun)
    assert isinstance(ledger("reprice", "--prices", tmp_path / "gone.toml").exception, UnknownPrice)


# --- another ledger


def test_another_ledger_is_named_by_an_option_or_the_environment(
    books: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "other" / "ledger.db"
    said("limit", "elsewhere", "--usd", "1", "--ledger", other)
    assert [row["name"] for row in data("accounts", "--ledger", other)] == ["elsewhere"]
    monkeypatch.setenv("AGENTBUDGET_LEDGER", str(other))
    assert [row["name"] for row in data("accounts")] == ["elsewhere"]
    assert len(data("accounts", "--ledger", books)) == 4
    assert len(data("accounts", "--home", tmp_path / "no-home")) == 1


def test_a_wrong_path_makes_no_new_ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[list[str]] = [
        ["accounts"],
        ["limit", "user/42"],
        ["topup", "user/42", "--usd", "1", "--id", "x"],
        ["freeze", "user/42"],
        ["holds"],
        ["entries"],
        ["verify"],
        ["export", str(tmp_path / "journal.jsonl")],
        ["sweep"],
    ]
    for look in looks:
        done = ledger(*look, "--ledger", tmp_path / "nothing.db")
        assert isinstance(done.exception, StoreUnavailable), look
        assert "nothing.db" in str(done.exception)
    monkeypatch.setenv("AGENTBUDGET_LEDGER", str(tmp_path / "nothing.db"))
    assert isinstance(ledger("verify").exception, StoreUnavailable)
    assert list(tmp_path.iterdir()) == []


# --- bad input


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ("limit nobody", UnknownAccount),
        ("topup nobody --usd 1 --id x", UnknownAccount),
        ("freeze nobody", UnknownAccount),
        ("unfreeze nobody", UnknownAccount),
        ("limit user/42 --usd abc", InvalidAmount),
        ("limit user/42 --usd -1", InvalidAmount),
        ("limit user/42 --usd NaN", InvalidAmount),
        ("limit user/42 --usd 1e30", InvalidAmount),
        ("limit user/42 --usd 1 --window week", InvalidArgument),
        ("limit user/42 --usd 1 --window day@Nowhere/Land", InvalidArgument),
        ("limit user/42 --usd 1 --parent nobody", UnknownAccount),
        ("limit hold:x --usd 1", InvalidArgument),
        ("limit user/42 --tokens -1", click.BadParameter),
        ("limit user/42 --calls many", click.BadParameter),
        ("holds --state none", click.BadParameter),
        ("entries --last 0", click.BadParameter),
        ("entries --after 9999999999999999999999", click.BadParameter),
        ("accounts --at 9999-12-31T23:59-12:00", click.BadParameter),
        ("export journal.csv", InvalidArgument),
        ("export nowhere/journal.jsonl", ExportError),
        ("verify --export nowhere.jsonl", ExportError),
        ("reprice", click.MissingParameter),
        ("accounts --ledger .", StoreUnavailable),
        ("accounts --ledger :memory:", InvalidArgument),
        ("limit user/42 --usd 1 --ledger file:ledger.db", InvalidArgument),
        ("limit user/42 --usd 1 --ledger sqlite:///ledger.db", InvalidArgument),
        ("accounts --ledger letter.txt", SchemaMismatch),
    ],
)
def test_bad_input_is_an_error_and_changes_nothing(
    arguments: str, error: type[Exception], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("letter.txt").write_text("not a ledger " * 100)
    done = ledger(*arguments.split())
    assert isinstance(done.exception, error), done.exception
    if home_ledger().exists():
        with Ledger.open(home_ledger()) as opened:
            assert opened.entries() == []
    assert [path.name for path in tmp_path.iterdir() if path.name != "home"] == ["letter.txt"]


@pytest.mark.parametrize("program", [False, True])
def test_an_error_is_a_message_and_for_programs_an_object(program: bool) -> None:
    command = [sys.executable, "-m", "agentbudget", "ledger", "freeze", "nobody", *(["--json"] if program else [])]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "no account 'nobody': open it with ledger.account('nobody'), or agentbudget ledger limit" in done.stderr
    assert "Traceback" not in done.stderr
    assert (json.loads(done.stdout)["error"]["type"] == "UnknownAccount") if program else done.stdout == ""


def test_where_letters_cannot_be_shown_they_are_written_out(books: Path) -> None:
    with Ledger.open(books) as opened:
        opened.account("user/日本")
    command = [sys.executable, "-m", "agentbudget", "ledger", "freeze", "user/日本", "--ledger", str(books)]
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert (done.returncode, done.stderr) == (0, "")
    assert "\\u65e5" in done.stdout


def test_help_names_every_command() -> None:
    shown = said("--help")
    queries = ["accounts", "holds", "entries", "verify", "export", "reprice"]
    changes = ["limit", "topup", "freeze", "unfreeze", "sweep"]
    assert [name for name in queries + changes if f"\n  {name} " not in shown] == []
