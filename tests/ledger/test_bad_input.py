"""What bad input gets: an error of the tree with its facts in fields, and a ledger that did not change."""

from __future__ import annotations

import os
import sqlite3
import tempfile
from collections.abc import Callable, Generator
from contextlib import contextmanager
from datetime import UTC, datetime
from decimal import Decimal
from functools import reduce
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import pytest

from agentbudget.errors import (
    AccountConflict,
    AccountFrozen,
    BudgetExceeded,
    HoldClosed,
    HoldConflict,
    InvalidAmount,
    InvalidArgument,
    SchemaMismatch,
    StoreBusy,
    StoreUnavailable,
    UnknownAccount,
    UnknownHold,
)
from agentbudget.ledger import Ledger
from agentbudget.ledger.sqlite import VERSION, SqliteStore
from agentbudget.money import MAX, Amount, Budget

HUGE: Final = pytest.param(1 << 20_000, id="huge")
NOT_TEXT: Final = [
    pytest.param("", id="empty"),
    pytest.param("\0", id="NUL"),
    pytest.param("\ud800", id="surrogate"),
    5,
    None,
    b"run/1",
    ["run/1"],
]


@pytest.fixture
def books(ledger: Ledger) -> Generator[Ledger]:
    """Accounts and holds in every state; in the end they must be as they were."""
    ledger.account("org", limit=Budget(usd="1", tokens=1000))
    ledger.account("user/42", parent="org", windows={"day": Budget(calls=9)})
    ledger.account("other")
    ledger.account("full")
    ledger.account("stopped")
    ledger.freeze("stopped", reason="abuse")
    ledger.reserve("all", Amount(tokens=MAX), accounts=["full"])
    ledger.reserve("open", Amount(5, 5), accounts=["user/42"])
    ledger.reserve("inner", Amount(1), within="open")
    ledger.reserve("settled", Amount(5, 5), accounts=["user/42"]).settle(Amount(4))
    ledger.reserve("voided", Amount(5, 5), accounts=["user/42"]).void()
    ledger.top_up("org", Budget(usd="1"), topup_id="invoice-1")
    before = state(ledger)
    yield ledger
    assert state(ledger) == before
    assert ledger.verify().ok


def state(ledger: Ledger) -> tuple[object, ...]:
    """Everything that a caller can see."""
    accounts = ledger.accounts()
    return accounts, [ledger.windows(a.name) for a in accounts], ledger.holds(), ledger.entries()


# --- amounts


@pytest.mark.parametrize(
    ("usd", "message"),
    [
        ("-0.01", "negative"),
        (-1, "negative"),
        ("NaN", "finite"),
        ("sNaN", "finite"),
        ("-Infinity", "finite"),
        (Decimal("Infinity"), "finite"),
        (0.1, r"usd='0\.1'"),
        (True, "bool"),
        ("1e30", "more than the ledger can hold"),
        pytest.param(1 << 20_000, "more than the ledger can hold", id="huge"),
        ("ten", "not an amount"),
        (b"1", "bytes"),
    ],
)
@pytest.mark.parametrize("make", [Amount.of, Budget])
def test_dollars_that_are_no_amount_are_refused(make: Callable[..., object], usd: Any, message: str) -> None:
    with pytest.raises(InvalidAmount, match=message) as refused:
        make(usd=usd)
    assert refused.value.unit == "usd"
    assert refused.value.value is not None


@pytest.mark.parametrize("value", [-1, 1.0, True, "5", float("nan"), MAX + 1, None, HUGE])
@pytest.mark.parametrize("unit", ["usd_nano", "tokens", "calls"])
def test_a_unit_that_is_no_whole_number_in_range_is_refused(unit: str, value: Any) -> None:
    with pytest.raises(InvalidAmount, match=unit) as refused:
        Amount(**{unit: value})
    assert (refused.value.unit, refused.value.value) == (unit, pytest.approx(value, nan_ok=True) if value else value)


@pytest.mark.parametrize("amount", [5, 0.02, "0.02", None, Budget(tokens=5), (1, 2, 3)])
def test_a_bare_number_is_no_amount(books: Ledger, amount: Any) -> None:
    asked: list[Callable[[], object]] = [
        lambda: books.reserve("new", amount, accounts=["user/42"]),
        lambda: books.reserve("new", amount, within="open"),
        lambda: books.extend("open", amount),
        lambda: books.reduce("open", amount),
        lambda: books.settle("open", amount),
        lambda: books.settle("settled", amount),
    ]
    for ask in asked:
        with pytest.raises(InvalidAmount, match=r"Amount\.of") as refused:
            ask()
        assert refused.value.value is amount


@pytest.mark.parametrize("budget", [5, 0.02, "0.02", Amount(5)])
def test_a_bare_number_is_no_budget(books: Ledger, budget: Any) -> None:
    asked: list[Callable[[], object]] = [
        lambda: books.account("user/42", limit=budget),
        lambda: books.account("user/42", windows={"day": budget}),
        lambda: books.set_limit("user/42", budget),
        lambda: books.top_up("org", budget, topup_id="invoice-2"),
    ]
    for ask in asked:
        with pytest.raises(InvalidAmount, match=r"Budget\(") as refused:
            ask()
        assert refused.value.value is budget


def test_a_balance_that_no_store_could_keep_is_refused(books: Ledger) -> None:
    with pytest.raises(InvalidAmount, match="more than the ledger can hold") as refused:
        books.reserve("new", Amount(tokens=1), accounts=["full"])
    assert (refused.value.unit, refused.value.value) == ("tokens", MAX + 1)
    with pytest.raises(InvalidAmount, match="more than the ledger can hold"):
        books.top_up("org", Budget(tokens=MAX), topup_id="invoice-2")


# --- accounts


@pytest.mark.parametrize("name", [*NOT_TEXT, "hold:open"])
def test_what_cannot_name_an_account_is_refused(books: Ledger, name: Any) -> None:
    with pytest.raises(InvalidArgument, match="account") as refused:
        books.account(name)
    assert (refused.value.argument, refused.value.value) == ("account", name)


def test_accounts_that_were_never_opened_are_named(books: Ledger) -> None:
    asked: list[Callable[[], object]] = [
        lambda: books.reserve("new", Amount(1), accounts=["user/42", "nobody"]),
        lambda: books.account("new", parent="nobody"),
        lambda: books.balance("nobody"),
        lambda: books.balance("nobody", at=datetime.now(UTC)),
        lambda: books.windows("nobody"),
        lambda: books.set_limit("nobody", Budget()),
        lambda: books.top_up("nobody", Budget(usd=1), topup_id="t"),
        lambda: books.freeze("nobody"),
        lambda: books.unfreeze("nobody"),
    ]
    for ask in asked:
        with pytest.raises(UnknownAccount, match="nobody") as refused:
            ask()
        assert refused.value.account == "nobody"


@pytest.mark.parametrize("accounts", ["user/42", "o", 5, ["user/42", 5], [["user/42"]], [None]])
def test_accounts_are_a_list_of_names(books: Ledger, accounts: Any) -> None:
    books._lineages[("o",)] = ("org",)  # pyright: ignore[reportPrivateUsage] # a letter is not its own list
    with pytest.raises(InvalidArgument, match="list of names") as refused:
        books.reserve("new", Amount(1), accounts=accounts)
    assert (refused.value.argument, refused.value.value) == ("accounts", accounts)


def test_a_hold_weighs_on_accounts_or_within_a_hold(books: Ledger) -> None:
    with pytest.raises(InvalidArgument, match="one of the two"):
        books.reserve("new", Amount(1))
    with pytest.raises(InvalidArgument, match="one of the two"):
        books.reserve("new", Amount(1), accounts=["user/42"], within="open")


def test_a_cycle_of_parents_cannot_be_made(books: Ledger) -> None:
    with pytest.raises(UnknownAccount) as unknown:  # a parent is there before its child
        books.account("new", parent="new")
    assert unknown.value.account == "new"
    with pytest.raises(AccountConflict) as conflict:  # and a child never gets another one
        books.account("org", parent="user/42")
    assert (conflict.value.account, conflict.value.known, conflict.value.asked) == ("org", None, "user/42")
    with pytest.raises(AccountConflict):
        books.account("user/42", parent="other")


def test_a_frozen_account_is_named(books: Ledger) -> None:
    with pytest.raises(AccountFrozen, match="abuse") as refused:
        books.reserve("new", Amount(1), accounts=["stopped"])
    assert refused.value.account == "stopped"


@pytest.mark.parametrize("reason", [None, 5, "\0", "\ud800"])
def test_a_reason_is_text_and_none_does_not_unfreeze(books: Ledger, reason: Any) -> None:
    with pytest.raises(InvalidArgument) as refused:
        books.freeze("stopped", reason=reason)
    assert refused.value.argument == "reason"


# --- limits and windows


@pytest.mark.parametrize(
    "window", ["week", "", "day@Nowhere/Land", "0s", "-5m", "1.5h", "999999999d", "day@../../etc", 5, None]
)
def test_what_is_no_window_is_refused(books: Ledger, window: Any) -> None:
    asked: list[Callable[[], object]] = [
        lambda: books.set_limit("org", Budget(usd=1), window=window),
        lambda: books.top_up("org", Budget(usd=1), topup_id="t", window=window),
        lambda: books.account("org", windows={window: Budget(usd=1)}),
    ]
    for ask in asked:
        with pytest.raises(InvalidArgument) as refused:
            ask()
        assert (refused.value.argument, refused.value.value) == ("window", window)


@pytest.mark.parametrize("topup_id", NOT_TEXT)
def test_a_top_up_has_an_id(books: Ledger, topup_id: Any) -> None:
    with pytest.raises(InvalidArgument) as refused:
        books.top_up("org", Budget(usd=1), topup_id=topup_id)
    assert (refused.value.argument, refused.value.value) == ("topup_id", topup_id)


def test_a_top_up_under_a_used_id_is_an_error_unless_it_is_the_same(books: Ledger) -> None:
    books.top_up("org", Budget(usd="1"), topup_id="invoice-1")
    with pytest.raises(AccountConflict) as refused:
        books.top_up("org", Budget(usd="2"), topup_id="invoice-1")
    assert refused.value.account == "org"
    assert refused.value.known is not None
    assert refused.value.known != refused.value.asked
    with pytest.raises(AccountConflict):
        books.top_up("other", Budget(usd="1"), topup_id="invoice-1")


def test_there_must_be_a_limit_to_top_up(books: Ledger) -> None:
    with pytest.raises(InvalidArgument, match="no limit of calls"):
        books.top_up("org", Budget(calls=1), topup_id="t")


@pytest.mark.parametrize("at", [datetime(2026, 11, 1), "2026-11-01", 5])
def test_a_moment_has_a_time_zone(books: Ledger, at: Any) -> None:
    with pytest.raises(InvalidArgument) as refused:
        books.accounts(at=at)
    assert (refused.value.argument, refused.value.value) == ("at", at)


# --- holds


@pytest.mark.parametrize("hold_id", NOT_TEXT)
def test_a_hold_has_an_id(books: Ledger, hold_id: Any) -> None:
    with pytest.raises(InvalidArgument) as refused:
        books.reserve(hold_id, Amount(1), accounts=["user/42"])
    assert (refused.value.argument, refused.value.value) == ("hold_id", hold_id)


def test_an_id_is_not_used_for_another_hold(books: Ledger) -> None:
    assert books.reserve("open", Amount(5, 5), accounts=["user/42"]).replayed
    with pytest.raises(HoldConflict) as amount:
        books.reserve("open", Amount(5, 6), accounts=["user/42"])
    assert (amount.value.hold_id, amount.value.known, amount.value.asked) == ("open", Amount(5, 5), Amount(5, 6))
    with pytest.raises(HoldConflict) as accounts:
        books.reserve("open", Amount(5, 5), accounts=["org"])
    assert (accounts.value.known, accounts.value.asked) == (("user/42", "org"), ("org",))
    with pytest.raises(HoldConflict) as within:
        books.reserve("inner", Amount(1), accounts=["org"])
    assert (within.value.known, within.value.asked) == ("open", ("org",))


def test_an_id_is_not_used_for_another_hold_even_where_there_is_no_room(books: Ledger) -> None:
    with pytest.raises(HoldConflict):
        books.reserve("open", Amount(5, 5000), accounts=["user/42"])
    with pytest.raises(BudgetExceeded):
        books.reserve("new", Amount(5, 5000), accounts=["user/42"])


def test_a_hold_that_is_not_there_is_named(books: Ledger) -> None:
    asked: list[Callable[[], object]] = [
        lambda: books.settle("nothing"),
        lambda: books.void("nothing"),
        lambda: books.mark_sent("nothing"),
        lambda: books.extend("nothing", Amount(1)),
        lambda: books.reduce("nothing", Amount(1)),
        lambda: books.adopt("nothing"),
        lambda: books.reserve("new", Amount(1), within="nothing"),
    ]
    for ask in asked:
        with pytest.raises(UnknownHold, match="nothing") as refused:
            ask()
        assert refused.value.hold_id == "nothing"


def test_a_hold_ends_once(books: Ledger) -> None:
    assert books.settle("settled", Amount(4)).settled == Amount(4)  # the same again changes nothing
    assert books.void("voided").state == "voided"
    asked: list[tuple[Callable[[], object], str, str]] = [
        (lambda: books.settle("settled", Amount(5)), "settled", "settled"),
        (lambda: books.settle("settled", Amount(5), presumed=True), "settled", "settled"),
        (lambda: books.settle("voided", Amount(1)), "voided", "voided"),
        (lambda: books.void("settled"), "settled", "settled"),
        (lambda: books.mark_sent("settled"), "settled", "settled"),
        (lambda: books.extend("voided", Amount(9)), "voided", "voided"),
        (lambda: books.reduce("voided", Amount(1)), "voided", "voided"),
        (lambda: books.adopt("voided"), "voided", "voided"),
        (lambda: books.reserve("new", Amount(1), within="settled"), "settled", "settled"),
    ]
    for ask, hold_id, was in asked:
        with pytest.raises(HoldClosed) as refused:
            ask()
        assert (refused.value.hold_id, refused.value.state) == (hold_id, was)


CIRCLE: Final[list[Any]] = []
CIRCLE.append(CIRCLE)
CIRCLES: Final[list[Any]] = []
CIRCLES.extend([[CIRCLES], [CIRCLES]])


def nested(depth: int) -> dict[str, Any]:
    return reduce(lambda inner, _: {"deeper": [inner]}, range(depth // 2), dict[str, Any](list=[]))


@pytest.mark.parametrize(
    "detail",
    [
        "text",
        ["a list"],
        5,
        {"a set": {1}},
        {"bytes": b"x"},
        {"a decimal": Decimal(1)},
        {"not a number": float("nan")},
        {"infinite": float("inf")},
        {5: "a key that is no text"},
        {"deep": [{2: "x", 10: "y"}]},
        pytest.param({"half a character": "\ud800"}, id="surrogate"),
        pytest.param({"a circle": CIRCLE}, id="circle"),
        pytest.param({"circles": [CIRCLES, CIRCLES]}, id="circles"),
        pytest.param(nested(100_000), id="deep"),
        pytest.param(nested(102), id="too deep to read everywhere"),
    ],
)
def test_details_that_are_no_json_are_refused(books: Ledger, detail: Any) -> None:
    asked: list[tuple[Callable[[], object], str]] = [
        (lambda: books.reserve("new", Amount(1), accounts=["user/42"], meta=detail), "meta"),
        (lambda: books.settle("open", Amount(1), detail=detail), "detail"),
        (lambda: books.settle("inner", Amount(1), presumed=True, detail=detail), "detail"),
    ]
    for ask, _argument in asked:
        with pytest.raises(InvalidArgument) as refused:
            ask()
        assert refused.value.argument in ("meta", "detail")


def test_details_as_deep_as_they_may_be_are_read_and_listed_by_a_block(ledger: Ledger) -> None:
    ledger.account("a")
    with ledger.lease(["a"], block=Amount(9)) as lease:
        hold = lease.reserve("in", Amount(1), meta=nested(98))
        with pytest.raises(InvalidArgument):
            hold.settle(Amount(1), detail=nested(100))
        hold.settle(Amount(1), detail=nested(98))
    ledger.reserve("out", Amount(1), accounts=["a"], meta=nested(98)).settle(Amount(1), detail=nested(98))
    block, out = ledger.holds()
    assert block.detail["paid"][0]["meta"] == out.meta == nested(98)
    assert ledger.verify().ok


@pytest.mark.parametrize("reason", [5, None, "\ud800"])
def test_a_reason_to_void_is_text(books: Ledger, reason: Any) -> None:
    with pytest.raises(InvalidArgument):
        books.void("inner", reason=reason)


def test_any_mapping_of_json_may_go_with_a_hold(ledger: Ledger) -> None:
    ledger.account("user/42")
    meta = MappingProxyType({"model": "m", "grüße": ["日本", 1.5, True, None, {"z": 1, "a": -0.0}]})
    ledger.reserve("new", Amount(1), accounts=["user/42"], meta=meta).settle(Amount(1), detail=meta)
    kept = ledger.hold("new")
    assert kept is not None
    assert dict(kept.meta) == dict(kept.detail) == dict(meta)
    assert ledger.verify().ok


@pytest.mark.parametrize("count", [-1, 2**63, 10**30, 1.0, "5", True])
def test_a_count_is_a_whole_number(books: Ledger, count: Any) -> None:
    asked: list[tuple[str, Callable[[], object]]] = [
        ("after", lambda: books.entries(after=count)),
        ("limit", lambda: books.entries(limit=count)),
        ("last", lambda: books.entries(last=count)),
        ("limit", lambda: books.history("t", count)),
    ]
    for argument, ask in asked:
        with pytest.raises(InvalidArgument) as refused:
            ask()
        assert (refused.value.argument, refused.value.value) == (argument, count)


def test_the_last_none_of_the_entries_are_none(books: Ledger) -> None:
    assert books.entries(last=0) == books.entries(last=0, subject="user/42") == []


def test_a_moment_beyond_all_calendars_has_no_windows(books: Ledger) -> None:
    end = datetime.max.replace(tzinfo=UTC)
    assert books.accounts(at=end) == books.accounts()
    with pytest.raises(InvalidArgument) as refused:
        books.windows("user/42", at=end)
    assert refused.value.argument == "at"


# --- where the ledger lies


@contextmanager
def closed(path: Path, mode: int) -> Generator[None]:
    """Forbid what `mode` forbids to whoever runs the tests: nothing is forbidden to root, who steps down meanwhile."""
    Ledger.open("memory:").close()  # whoever steps down may not be able to load modules
    before, root = path.stat().st_mode, os.geteuid() == 0
    path.chmod(mode)
    if root:
        for owned in (path, *path.parent.iterdir(), *(path.iterdir() if path.is_dir() else ())):
            os.chown(owned, 65534, -1)
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)
        path.chmod(before)


@pytest.fixture
def folder() -> Generator[Path]:
    """A folder that everybody can reach."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        (Path(name) / "books").mkdir()
        yield Path(name) / "books"


def filled(path: Path) -> Path:
    with Ledger.open(path) as ledger:
        ledger.account("user/42")
        ledger.reserve("a", Amount(5), accounts=["user/42"]).settle(Amount(4))
    return path


def unavailable(path: Path) -> StoreUnavailable:
    with pytest.raises(StoreUnavailable, match="nothing was admitted") as refused:
        Ledger.open(path).account("user/43")
    assert refused.value.location == str(path)
    return refused.value


def test_a_folder_that_may_not_be_written_is_named(folder: Path) -> None:
    with closed(folder, 0o555):
        unavailable(folder / "ledger.db")
    assert list(folder.iterdir()) == []


def test_a_ledger_in_a_folder_that_may_not_be_written_is_named(folder: Path) -> None:
    path = filled(folder / "ledger.db")
    (folder / "ledger.db-turn").unlink()
    before = path.read_bytes()
    with closed(folder, 0o555):
        unavailable(path)
    assert path.read_bytes() == before


def test_a_file_that_may_not_be_written_is_named(folder: Path) -> None:
    path = filled(folder / "ledger.db")
    before = path.read_bytes()
    with closed(path, 0o444):
        unavailable(path)
    assert path.read_bytes() == before


def test_a_folder_is_no_ledger(tmp_path: Path) -> None:
    (tmp_path / "books").mkdir()
    assert "directory" in str(unavailable(tmp_path / "books")).lower()
    assert [path.name for path in tmp_path.iterdir()] == ["books"]


def test_a_path_below_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    unavailable(tmp_path / "file" / "ledger.db")
    assert (tmp_path / "file").read_text() == "x"


@pytest.mark.parametrize("path", ["", "a\0b", None, 5])
def test_what_is_no_path_is_named(path: Any) -> None:
    with pytest.raises(InvalidArgument) as refused:
        Ledger.open(path)
    assert (refused.value.argument, refused.value.value) == ("location", path)


@pytest.mark.parametrize(
    "address",
    [
        "postgresql+psycopg://u:secret@db/agents",
        "PostgreSQL://u:secret@db/agents",
        "sqlite:///ledger.db",
        "redis://localhost",
        "host=db dbname=agents user=u password=secret",
        "password = 'secret' dbname=agents",
        "file:ledger.db?mode=memory",
        ":memory:",
        Path("postgresql://u:secret@db/agents"),
    ],
)
def test_an_address_of_another_kind_is_refused_and_makes_no_file(
    address: str | Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InvalidArgument, match="write a path") as refused:
        Ledger.open(address)
    assert refused.value.argument == "location"
    assert "secret" not in f"{refused.value} {refused.value.value}"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("lease_s", [float("inf"), float("nan"), -1, "60", None])
def test_a_lease_lasts_a_number_of_seconds(lease_s: Any) -> None:
    with pytest.raises(InvalidArgument) as refused:
        Ledger.open("memory:", lease_s=lease_s)
    assert refused.value.argument == "lease_s"


def test_another_programs_database_is_refused_and_left_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    other = sqlite3.connect(path)
    other.execute("CREATE TABLE t (x)")
    other.close()
    before = path.read_bytes()
    with pytest.raises(SchemaMismatch, match="another program") as refused:
        Ledger.open(path)
    assert refused.value.location == str(path)
    assert path.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["other.db"]


def test_what_is_no_database_is_refused_and_left_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "letter.txt"
    path.write_bytes(b"not a database, only words" * 100)
    with pytest.raises(SchemaMismatch, match="not an SQLite database") as refused:
        Ledger.open(path)
    assert refused.value.location == str(path)
    assert path.read_bytes() == b"not a database, only words" * 100


@pytest.mark.parametrize("version", [VERSION + 1, 99])
def test_a_newer_schema_is_refused_and_left_as_it_was(tmp_path: Path, version: int) -> None:
    path = filled(tmp_path / "ledger.db")
    with Ledger.open(path) as ledger:
        before = state(ledger)
    raw = sqlite3.connect(path)
    raw.execute(f"PRAGMA user_version = {version}")
    raw.commit()
    with pytest.raises(SchemaMismatch, match=f"schema {version}") as refused:
        Ledger.open(path)
    fields = refused.value
    assert (fields.location, fields.found, fields.expected) == (str(path), version, VERSION)
    raw.execute(f"PRAGMA user_version = {VERSION}")
    raw.commit()
    raw.close()
    with Ledger.open(path) as ledger:
        assert state(ledger) == before


def test_a_file_that_somebody_keeps_locked_is_named(tmp_path: Path) -> None:
    path = filled(tmp_path / "ledger.db")
    blocker = sqlite3.connect(path, isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")
    with Ledger(SqliteStore(path, busy_timeout_s=0.05)) as ledger:
        with pytest.raises(StoreBusy) as refused:
            ledger.account("late")
        assert refused.value.location == str(path)
    blocker.close()
