"""Limits within windows of time, top-ups and freezes, over every store."""

from __future__ import annotations

from collections.abc import Generator
from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from agentbudget.errors import AccountConflict, AccountFrozen, BudgetExceeded, Mistake
from agentbudget.ledger import Ledger, Window
from agentbudget.ledger.core import open_store
from agentbudget.money import Amount, Budget
from agentbudget.testing import ManualClock

BERLIN = ZoneInfo("Europe/Berlin")


def ns(moment: datetime) -> int:
    return int(moment.timestamp()) * 10**9


def tokens(count: int) -> Amount:
    return Amount(tokens=count)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(ns(datetime(2026, 3, 28, 22, 30, tzinfo=UTC)))  # 23:30 in Berlin, the night before summer time


@pytest.fixture(params=["memory", "sqlite"])
def ledger(request: pytest.FixtureRequest, tmp_path: Path, clock: ManualClock) -> Generator[Ledger]:
    store = open_store("memory:" if request.param == "memory" else tmp_path / "ledger.db")
    with Ledger(store, clock=clock, owner="elsewhere") as opened:
        yield opened
        verification = opened.verify()
        assert verification.ok, verification.problems


def test_a_refusal_counts_one_call_as_one(ledger: Ledger) -> None:
    ledger.account("a", limit=Budget(calls=1, tokens=1))
    with pytest.raises(
        BudgetExceeded, match=r"a has 1 call left of 1 call, and this needs 2 calls: .* at least 1 call$"
    ):
        ledger.reserve("h", Amount(calls=2), accounts=["a"])
    with pytest.raises(BudgetExceeded, match=r"this needs 2 tokens: raise the limit by at least 1 token$"):
        ledger.reserve("h", Amount(tokens=2), accounts=["a"])


def test_a_day_ends_at_midnight_of_its_zone(ledger: Ledger, clock: ManualClock) -> None:
    ledger.account("user/1", windows={"day@Europe/Berlin": Budget(tokens=10)})
    ledger.reserve("a", tokens(10), accounts=["user/1"]).settle(tokens(9))
    with pytest.raises(BudgetExceeded) as refused:
        ledger.reserve("b", tokens(2), accounts=["user/1"])
    assert (refused.value.window, refused.value.available) == ("day@Europe/Berlin", 1)
    assert refused.value.resets_at == datetime(2026, 3, 29, tzinfo=BERLIN)
    clock.advance(30 * 60)
    ledger.reserve("b", tokens(10), accounts=["user/1"])
    clock.advance(22 * 3600 + 59 * 60)  # the day of summer time has 23 hours
    with pytest.raises(BudgetExceeded):
        ledger.reserve("c", tokens(1), accounts=["user/1"])
    clock.advance(60)
    ledger.reserve("c", tokens(10), accounts=["user/1"])


def test_a_hold_counts_in_the_window_in_which_it_was_reserved(ledger: Ledger, clock: ManualClock) -> None:
    ledger.account("user/1", windows={"hour": Budget(tokens=10)})
    ledger.reserve("a", tokens(8), accounts=["user/1"])
    clock.advance(3600)
    ledger.settle("a", tokens(7))
    (hour,) = ledger.windows("user/1")
    assert (hour.posted.tokens, hour.available.tokens) == (0, 10)
    clock.advance(-3600)  # a clock that goes back finds what was spent
    (hour,) = ledger.windows("user/1")
    assert (hour.posted.tokens, hour.available.tokens) == (7, 3)


def test_a_rolling_window_frees_what_is_older(ledger: Ledger, clock: ManualClock) -> None:
    ledger.account("user/1", windows={"60s": Budget(calls=2)})
    for n in range(2):
        ledger.reserve(f"a{n}", Amount(calls=1), accounts=["user/1"]).settle(Amount(calls=1))
        clock.advance(20)
    with pytest.raises(BudgetExceeded, match="60s"):
        ledger.reserve("b", Amount(calls=1), accounts=["user/1"])
    clock.advance(20.1)
    ledger.reserve("b", Amount(calls=1), accounts=["user/1"])
    with pytest.raises(BudgetExceeded):
        ledger.reserve("c", Amount(calls=1), accounts=["user/1"])


def test_the_narrowest_limit_decides_and_a_refusal_leaves_nothing(ledger: Ledger) -> None:
    ledger.account("org", limit=Budget(tokens=100), windows={"month": Budget(tokens=50)})
    ledger.account("user/1", parent="org", windows={"day": Budget(tokens=20), "15m": Budget(tokens=15)})
    with pytest.raises(BudgetExceeded, match="900s"):
        ledger.reserve("a", tokens(16), accounts=["user/1"])
    assert ledger.balance("org").held == Amount()
    assert all(window.held == Amount() for name in ("org", "user/1") for window in ledger.windows(name))


def test_a_new_window_counts_what_was_reserved_before(ledger: Ledger, clock: ManualClock) -> None:
    ledger.account("user/1")
    ledger.reserve("yesterday", tokens(50), accounts=["user/1"]).settle(tokens(50))
    clock.advance(2 * 3600)
    ledger.reserve("a", tokens(7), accounts=["user/1"]).settle(tokens(6))
    ledger.reserve("open", tokens(3), accounts=["user/1"])
    ledger.set_limit("user/1", Budget(tokens=10), window="day")
    (day,) = ledger.windows("user/1")
    assert (day.posted.tokens, day.held.tokens, day.available.tokens) == (6, 3, 1)
    ledger.settle("open", tokens(2))
    ledger.set_limit("user/1", Budget(), window="day")
    assert ledger.windows("user/1") == []


@pytest.mark.parametrize("window", ["total", "day"])
def test_a_limit_may_leave_the_other_units_as_they_are(ledger: Ledger, window: str) -> None:
    ledger.account("user/1")

    def limit() -> Budget:
        return ledger.balance("user/1").limit if window == "total" else ledger.windows("user/1")[0].limit

    ledger.set_limit("user/1", Budget(tokens=10), window=window)
    ledger.set_limit("user/1", Budget(calls=0), window=window, keep_others=True)
    assert limit() == Budget(tokens=10, calls=0)
    ledger.set_limit("user/1", Budget(calls=5), window=window)
    assert limit() == Budget(calls=5)
    entries = ledger.entries()
    ledger.set_limit("user/1", Budget(), window=window, keep_others=True)
    assert (limit(), ledger.entries()) == (Budget(calls=5), entries)


def test_a_top_up_happens_once(ledger: Ledger) -> None:
    ledger.account("user/1", limit=Budget(usd="1", tokens=10))
    for _ in range(2):
        account = ledger.top_up("user/1", Budget(usd="0.50"), topup_id="invoice-17")
        assert (str(account.limit.usd), account.limit.tokens) == ("1.5", 10)
    with pytest.raises(AccountConflict, match="invoice-17"):
        ledger.top_up("user/1", Budget(usd="0.60"), topup_id="invoice-17")
    with pytest.raises(Mistake, match="calls"):
        ledger.top_up("user/1", Budget(calls=1), topup_id="invoice-18")


def test_a_frozen_account_admits_nothing_and_books_what_was_sent(ledger: Ledger) -> None:
    ledger.account("org")
    ledger.account("user/1", parent="org", limit=Budget(tokens=100))
    step = ledger.reserve("step", tokens(50), accounts=["user/1"])
    call = ledger.reserve("call", tokens(10), within="step")
    ledger.freeze("org", reason="runaway agent")
    for kwargs in ({"accounts": ["user/1"]}, {"within": "step"}):
        with pytest.raises(AccountFrozen, match="runaway agent") as refused:
            ledger.reserve("next", tokens(1), **kwargs)  # pyright: ignore[reportArgumentType]
        assert refused.value.account == "org"
    with pytest.raises(AccountFrozen):
        step.extend(tokens(60))
    call.settle(tokens(8))
    step.settle()
    assert ledger.balance("org").posted.tokens == 8
    assert ledger.reserve("step", tokens(50), accounts=["user/1"]).replayed
    ledger.unfreeze("org")
    ledger.reserve("next", tokens(1), accounts=["user/1"])


def test_reducing_a_hold_frees_all_but_what_is_taken_within_it(ledger: Ledger) -> None:
    ledger.account("user/1", limit=Budget(tokens=100))
    step = ledger.reserve("step", tokens(80), accounts=["user/1"])
    ledger.reserve("call", tokens(30), within="step")
    step.reduce(tokens(10))
    assert ledger.balance("user/1").held.tokens == 30
    assert ledger.reserve("step", tokens(80), accounts=["user/1"]).replayed


def test_balances_at_a_moment_are_those_of_the_journal_then(ledger: Ledger, clock: ManualClock) -> None:
    ledger.account("user/1", limit=Budget(tokens=100))
    ledger.reserve("a", tokens(30), accounts=["user/1"])
    then = datetime.fromtimestamp(clock() / 1e9, UTC)
    clock.advance(60)
    ledger.settle("a", tokens(20))
    ledger.set_limit("user/1", Budget(tokens=50))
    was, now = ledger.balance("user/1", at=then), ledger.balance("user/1")
    assert (was.held.tokens, was.posted.tokens, was.limit.tokens) == (30, 0, 100)
    assert (now.held.tokens, now.posted.tokens, now.limit.tokens) == (0, 20, 50)
    with pytest.raises(Mistake, match="time zone"):
        ledger.accounts(at=datetime(2026, 1, 1))  # what is tested


@pytest.mark.parametrize("text", ["week", "day@Nowhere/Land", "0s", "-5m", "1.5h", "", "total"])
def test_what_is_no_window_is_named(text: str) -> None:
    with pytest.raises(Mistake):
        Window.parse(text)
