"""In which period of a window a hold counts, when time passes it by or goes back."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from agentbudget.errors import BudgetExceeded, Mistake, UnknownAccount
from agentbudget.ledger import Ledger
from agentbudget.ledger.core import open_store
from agentbudget.money import Amount, Budget
from agentbudget.testing import ManualClock

DAY_S = 86_400


def tokens(count: int) -> Amount:
    return Amount(tokens=count)


def room(ledger: Ledger) -> int | None:
    (window,) = ledger.windows("a")
    return window.available.tokens


@pytest.mark.parametrize("window", ["day", "24h"])
def test_more_for_a_hold_of_yesterday_must_fit_yesterday(timed: Ledger, clock: ManualClock, window: str) -> None:
    timed.account("a", windows={window: Budget(tokens=100)})
    hold = timed.reserve("x", tokens(90), accounts=["a"])
    clock.advance(1.5 * DAY_S)
    hold.extend(tokens(100))
    with pytest.raises(BudgetExceeded) as refused:
        hold.extend(tokens(101))
    assert refused.value.resets_at is None, "yesterday does not free up"
    assert room(timed) == 100


@pytest.mark.parametrize("window", ["day", "24h"])
def test_what_today_took_does_not_refuse_more_for_a_hold_of_yesterday(
    timed: Ledger, clock: ManualClock, window: str
) -> None:
    timed.account("a", windows={window: Budget(tokens=100)})
    hold = timed.reserve("x", tokens(50), accounts=["a"])
    clock.advance(1.5 * DAY_S)
    timed.reserve("y", tokens(100), accounts=["a"])
    hold.extend(tokens(60))
    assert room(timed) == 0


def test_a_rolling_window_is_right_after_the_clock_was_put_back(timed: Ledger, clock: ManualClock) -> None:
    timed.account("a", windows={"60s": Budget(tokens=100)})
    hold = timed.reserve("x", tokens(90), accounts=["a"])
    clock.advance(7200)
    hold.settle(tokens(10))
    clock.advance(-7190)
    assert room(timed) == 90


@pytest.mark.parametrize("window", ["day", "60s"])
def test_what_was_reserved_in_a_future_that_was_taken_back_still_counts(
    timed: Ledger, clock: ManualClock, window: str
) -> None:
    timed.account("a", windows={window: Budget(tokens=100)})
    clock.advance(DAY_S)
    timed.reserve("x", tokens(70), accounts=["a"])
    clock.advance(-DAY_S)
    assert room(timed) == 30
    with pytest.raises(BudgetExceeded):
        timed.reserve("y", tokens(31), accounts=["a"])


def test_a_balance_at_a_moment_is_whole_where_the_clock_was_put_back(timed: Ledger, clock: ManualClock) -> None:
    timed.account("a")
    clock.advance(100)
    hold = timed.reserve("x", tokens(9), accounts=["a"])
    clock.advance(-50)
    hold.settle(tokens(7))
    at = datetime.fromtimestamp(clock() / 1e9 + 1, UTC)
    balance = timed.balance("a", at=at)
    assert (balance.held.tokens, balance.posted.tokens) == (0, 7)


def test_a_lease_follows_a_clock_that_was_put_back(timed: Ledger, clock: ManualClock) -> None:
    timed.account("a")
    timed.reserve("x", tokens(1), accounts=["a"])
    clock.advance(-500)
    timed.adopt("x")
    clock.advance(70)
    timed.reserve("y", tokens(1), accounts=["a"])
    assert timed.sweep() == []


@pytest.mark.parametrize("window", ["1000000000s", "12000d", "999999999d"])
def test_a_window_that_no_clock_spans_is_refused(timed: Ledger, window: str) -> None:
    with pytest.raises(Mistake, match="window"):
        timed.account("a", windows={window: Budget(tokens=1)})


def test_the_longest_window_is_read_back_and_refuses_with_a_date(location: str, clock: ManualClock) -> None:
    with Ledger(open_store(location), clock=clock) as ledger:
        ledger.account("a", windows={"11000d": Budget(tokens=1)})
        ledger.reserve("x", tokens(1), accounts=["a"])
        with pytest.raises(BudgetExceeded) as refused:
            ledger.reserve("y", tokens(1), accounts=["a"])
        assert refused.value.resets_at is not None
        assert ledger.windows("a")[0].window.seconds == 11_000 * DAY_S


def test_an_extension_fits_every_rolling_time_that_the_hold_was_in(timed: Ledger, clock: ManualClock) -> None:
    timed.account("a", windows={"100s": Budget(tokens=100)})
    timed.reserve("old", tokens(50), accounts=["a"]).settle(tokens(50))
    clock.advance(90)
    hold = timed.reserve("long", tokens(50), accounts=["a"])
    clock.advance(20)  # the old one is out of what counts now; it was in with this one
    with pytest.raises(BudgetExceeded) as refused:
        hold.extend(tokens(51))
    assert (refused.value.window, refused.value.available) == ("100s", 0)
    timed.reserve("next", tokens(50), accounts=["a"]).settle(tokens(20))
    clock.advance(90)
    timed.reserve("later", tokens(60), accounts=["a"])  # out of every time that the long one is in
    hold.settle(tokens(50))


def test_an_extension_of_a_rolling_window_counts_what_came_after_the_hold(timed: Ledger, clock: ManualClock) -> None:
    timed.account("a", windows={"100s": Budget(tokens=100)})
    hold = timed.reserve("long", tokens(10), accounts=["a"])
    clock.advance(60)
    timed.reserve("after", tokens(60), accounts=["a"])
    hold.extend(tokens(40))
    with pytest.raises(BudgetExceeded):
        hold.extend(tokens(41))
    clock.advance(70)  # the hold is out of what counts now
    with pytest.raises(BudgetExceeded):
        hold.extend(tokens(41))


def test_windows_as_they_stood_at_a_moment(timed: Ledger, clock: ManualClock) -> None:
    timed.account("a", windows={"60s": Budget(tokens=100)})
    hold = timed.reserve("x", tokens(30), accounts=["a"])
    clock.advance(10)
    then = datetime.fromtimestamp(clock() / 1e9, UTC)
    before = timed.windows("a")
    clock.advance(1)
    hold.settle(tokens(20))
    timed.set_limit("a", Budget(tokens=50), window="60s")
    clock.advance(100)
    assert timed.windows("a", at=then) == before
    assert room(timed) == 50
    later = datetime.fromtimestamp(clock() / 1e9, UTC)
    assert timed.windows("a", at=later) == timed.windows("a")
    with pytest.raises(UnknownAccount):
        timed.windows("nobody", at=then)
