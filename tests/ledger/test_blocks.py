"""Leased blocks: what happens inside them is as true as on the ledger itself, and comes back."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Generator
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import pytest

from agentbudget.errors import (
    AccountFrozen,
    BudgetExceeded,
    HoldClosed,
    HoldConflict,
    InvalidAmount,
    InvalidArgument,
    Mistake,
    StoreBusy,
    StoreError,
    UnknownAccount,
    UnknownHold,
)
from agentbudget.ledger import Hold, HoldRecord, Ledger
from agentbudget.ledger.blocks import Blocks, Terms
from agentbudget.ledger.books import Books
from agentbudget.ledger.leased import LeasedBudget
from agentbudget.ledger.memory import MemoryStore
from agentbudget.ledger.sqlite import SqliteStore
from agentbudget.money import ZERO, Amount, Budget
from agentbudget.testing import ManualClock

HOT = "org/acme"


def calls(n: int) -> Amount:
    return Amount(calls=n)


def a_ledger(limit: int | None = 1000, **windows: Budget) -> tuple[Ledger, ManualClock]:
    clock = ManualClock()
    ledger = Ledger(MemoryStore(), clock=clock)
    ledger.account(HOT, limit=Budget(calls=limit), windows=windows)
    return ledger, clock


def two_ledgers() -> tuple[Ledger, Ledger, ManualClock]:
    """A ledger, and the same as a worker on another host sees it."""
    store, clock = MemoryStore(), ManualClock()
    ledger = Ledger(store, clock=clock)
    ledger.account(HOT, limit=Budget(calls=400))
    return ledger, Ledger(store, clock=clock, owner="elsewhere:1:x"), clock


def pay(lease: LeasedBudget, hold_id: str, held: int = 1, cost: int | None = None) -> HoldRecord:
    hold = lease.reserve(hold_id, calls(held))
    hold.mark_sent()
    return hold.settle(calls(held if cost is None else cost))


def block_of(lease: LeasedBudget, hold_id: str) -> str:
    record = lease.hold(hold_id)
    assert record is not None
    return record.accounts[0]


def state(ledger: Ledger, hold_id: str) -> HoldRecord:
    record = ledger.hold(hold_id)
    assert record is not None
    return record


@pytest.fixture(params=["memory", "journal"])
def journal(request: pytest.FixtureRequest, tmp_path: Path) -> Path | None:
    """Local books in memory, or in files."""
    return None if request.param == "memory" else tmp_path / "journal"


def test_many_holds_cost_the_shared_ledger_a_handful_of_entries(journal: Path | None) -> None:
    ledger, _ = a_ledger()
    with ledger.lease([HOT], block=calls(100), journal=journal) as lease:
        for n in range(100):
            pay(lease, f"call-{n}")
    assert ledger.balance(HOT).posted == calls(100)
    assert len(ledger.entries()) < 12
    assert ledger.verify().ok


def test_a_settled_block_lists_what_was_paid_inside(journal: Path | None) -> None:
    ledger, _ = a_ledger()
    with ledger.lease([HOT], block=calls(100), journal=journal) as lease:
        step = lease.reserve("step", calls(10), tag="answer", meta={"skill": "answer"})
        lease.reserve("step/1", calls(4), within="step").settle(calls(3), detail={"model": "m"})
        step.settle(calls(1))
        lease.reserve("unused", calls(1)).void()
        block = block_of(lease, "step")
    assert state(ledger, block).detail["paid"] == [
        {"id": "step", "cost": [0, 0, 1], "tag": "answer", "meta": {"skill": "answer"}},
        {"id": "step/1", "cost": [0, 0, 3], "within": "step", "detail": {"model": "m"}},
    ]


def test_what_comes_back_on_close_is_free_for_others() -> None:
    ledger, _ = a_ledger(100)
    with ledger.lease([HOT], block=calls(50)) as lease:
        pay(lease, "a", held=3, cost=2)
        assert ledger.balance(HOT).held.calls >= 3
    balance = ledger.balance(HOT)
    assert (balance.posted, balance.held) == (calls(2), ZERO)


def test_the_verbs_of_a_ledger_do_the_same_inside(journal: Path | None) -> None:
    ledger, _ = a_ledger()
    with ledger.lease([HOT], block=calls(100), journal=journal) as lease:
        hold = lease.reserve("a", calls(5), accounts=[HOT])
        hold.extend(calls(9))
        hold.reduce(calls(7))
        assert state_of(lease, "a").amount == calls(7)
        hold.mark_sent()
        with pytest.raises(HoldClosed):
            hold.void()
        hold.settle(calls(4))
        assert hold.settle(calls(4)).settled == calls(4)
        with pytest.raises(HoldClosed):
            hold.settle(calls(5))
        assert lease.reserve("a", calls(5)).replayed
        with pytest.raises(HoldConflict):
            lease.reserve("a", calls(6))
        with lease.reserve("b", calls(1)):
            pass
        assert state_of(lease, "b").state == "voided"
    assert ledger.balance(HOT).posted == calls(4)


def state_of(lease: LeasedBudget, hold_id: str) -> HoldRecord:
    record = lease.hold(hold_id)
    assert record is not None
    return record


def test_a_block_doubles_while_it_is_used_up_and_stays_below_most() -> None:
    ledger, _ = a_ledger(None)
    with ledger.lease([HOT], block=calls(2), most=Budget(calls=16)) as lease:
        sizes: list[int] = []
        for n in range(100):
            pay(lease, f"call-{n}")
            sizes.append(state(ledger, block_of(lease, f"call-{n}")).amount.calls)
        assert sizes[:8] == [2, 2, 4, 4, 8, 8, 8, 8]
        assert max(sizes) == 16


def test_a_unit_that_the_block_does_not_name_follows_demand() -> None:
    ledger, _ = a_ledger(None)
    with ledger.lease([HOT], block=Amount(usd_nano=10_000)) as lease:
        for n in range(200):
            lease.reserve(f"call-{n}", Amount(usd_nano=10, tokens=500, calls=1)).settle(Amount(10, 400, 1))
    assert ledger.balance(HOT).posted == Amount(2_000, 80_000, 200)
    assert len(ledger.entries()) < 40


def test_a_reservation_larger_than_most_is_leased_whole() -> None:
    ledger, _ = a_ledger(100)
    with ledger.lease([HOT], block=calls(2), most=Budget(calls=4)) as lease:
        pay(lease, "small")
        pay(lease, "large", held=50)
    assert ledger.balance(HOT).posted == calls(51)


def test_a_block_that_was_used_is_renewed_before_it_is_missed() -> None:
    ledger, clock = a_ledger(None)
    with ledger.lease([HOT], block=calls(8), renew_s=5) as lease:
        pay(lease, "a", held=7)
        first = block_of(lease, "a")
        lease.tend()  # less than a quarter is left
        assert (block_of(lease, "a"), lease.room) == (first, calls(9))
        clock.advance(5)
        lease.tend()
        assert (ledger.balance(HOT).posted, ledger.balance(HOT).held) == (calls(7), calls(16))
        entries = len(ledger.entries())
        pay(lease, "b", held=16)
        assert len(ledger.entries()) == entries
        lease.tend()  # all is used up
        assert lease.room == calls(16)


def test_an_idle_worker_gives_its_block_back_and_takes_less_the_next_time() -> None:
    ledger, clock = a_ledger(None)
    with ledger.lease([HOT], block=calls(4), renew_s=5) as lease:
        for n in range(20):
            pay(lease, f"call-{n}")
        assert lease.room == calls(12)
        clock.advance(5)
        lease.tend()
        assert lease.room == calls(32)
        clock.advance(5)
        lease.tend()
        assert (ledger.balance(HOT).held, ledger.balance(HOT).posted) == (ZERO, calls(20))
        pay(lease, "next")
        assert lease.room == calls(15)


def test_one_worker_alone_is_never_refused_what_fits(journal: Path | None) -> None:
    ledger, _ = a_ledger(100)
    with ledger.lease([HOT], block=calls(7), journal=journal) as lease:
        waits = lease.reserve("waits", calls(40))
        for n in range(20):
            pay(lease, f"call-{n}", held=3, cost=1)
        waits.settle(calls(10))
        for n in range(20, 90):
            pay(lease, f"call-{n}", held=1)
        with pytest.raises(BudgetExceeded) as refused:
            lease.reserve("one too many", calls(1))
    assert (refused.value.account, refused.value.available) == (HOT, 0)
    assert ledger.balance(HOT).posted == calls(100)
    assert ledger.verify().ok


def test_a_refusal_leaves_the_block_as_it_was() -> None:
    ledger, _ = a_ledger(100)
    with ledger.lease([HOT], block=calls(10)) as lease:
        pay(lease, "a")
        entries = len(ledger.entries())
        with pytest.raises(BudgetExceeded):
            lease.reserve("large", calls(1000))
        assert lease.hold("large") is None
        pay(lease, "b")
        assert len(ledger.entries()) == entries


def test_a_worker_is_refused_at_most_what_the_others_have_free() -> None:
    ledger, clock = a_ledger(100)
    with ledger.lease([HOT], block=calls(10)) as idle, ledger.lease([HOT], block=calls(10)) as busy:
        pay(idle, "idle")
        paid = 0
        with suppress(BudgetExceeded):
            while True:
                pay(busy, f"call-{paid}")
                paid += 1
        assert paid == 100 - 1 - idle.room.calls
        assert idle.room.calls > 0
        clock.advance(5)
        idle.tend()
        while paid < 99:
            pay(busy, f"call-{paid}")
            paid += 1
    assert ledger.balance(HOT).posted == calls(100)


def test_blocks_shrink_as_the_account_empties() -> None:
    ledger, _ = a_ledger(64)
    with ledger.lease([HOT], block=calls(50)) as lease:
        pay(lease, "a")
        assert lease.room.calls == 7


def test_a_reservation_within_a_hold_stays_within_it(journal: Path | None) -> None:
    ledger, _ = a_ledger()
    with ledger.lease([HOT], block=calls(100), journal=journal) as lease:
        lease.reserve("step", calls(5))
        lease.reserve("call", calls(4), within="step")
        with pytest.raises(BudgetExceeded, match="step"):
            lease.reserve("more", calls(2), within="step")
        lease.settle("step")
        with pytest.raises(HoldClosed):
            lease.reserve("late", calls(1), within="step")
        with pytest.raises(UnknownHold):
            lease.reserve("lost", calls(1), within="nothing")
    assert ledger.balance(HOT).posted == ZERO


def test_a_hold_that_outlives_its_block_is_settled_with_it() -> None:
    ledger, clock = a_ledger()
    with ledger.lease([HOT], block=calls(20)) as lease:
        long = lease.reserve("long", calls(10))
        pay(lease, "short", held=5, cost=3)
        clock.advance(10)
        pay(lease, "next")
        first = block_of(lease, "long")
        assert state(ledger, first).amount == calls(13)  # trimmed to what waits and what was paid
        assert block_of(lease, "next") != first
        long.extend(calls(15))
        assert state(ledger, first).amount == calls(18)
        long.settle(calls(12))
        assert state(ledger, first).settled == calls(15)
    assert ledger.balance(HOT).posted == calls(16)
    assert ledger.verify().ok


def test_an_id_is_the_same_hold_also_when_its_block_is_settled(journal: Path | None) -> None:
    ledger, clock = a_ledger(10)
    with ledger.lease([HOT], block=calls(2), journal=journal) as lease:
        pay(lease, "a")
        clock.advance(6)
        pay(lease, "b", held=9)
        again = lease.reserve("a", calls(1))
        assert (again.replayed, again.record.state) == (True, "settled")
        with pytest.raises(HoldConflict):
            lease.reserve("a", calls(2))
        assert lease.settle("a", calls(1)).settled == calls(1)
    assert ledger.balance(HOT).posted == calls(10)


def test_old_books_are_dropped_and_the_last_ids_remembered(
    journal: Path | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agentbudget.ledger.books.REMEMBERED", 50)
    ledger, _ = a_ledger(None)
    with ledger.lease([HOT], block=calls(10), most=Budget(calls=10), journal=journal) as lease:
        for n in range(100):
            pay(lease, f"call-{n}")
        waits = lease.reserve("waits", calls(5))
        for n in range(100, 300):
            pay(lease, f"call-{n}")
        assert lease.hold("call-0") is None
        waits.settle(calls(5))  # its book was kept for it
        assert all(lease.reserve(f"call-{n}", calls(1)).replayed for n in range(250, 300))
        assert lease.hold("waits") is None
        assert journal is None or len(list(journal.glob("*.db"))) < 4
    assert ledger.balance(HOT).posted == calls(305)


def test_a_presumption_is_corrected_before_and_after_its_block_is_settled(journal: Path | None) -> None:
    ledger, clock = a_ledger()
    with ledger.lease([HOT], block=calls(100), journal=journal) as lease:
        for name in ("a", "b", "c"):
            hold = lease.reserve(name, calls(10))
            hold.mark_sent()
            hold.presume()
        pay(lease, "d")
        lease.settle("a", calls(4))
        block = block_of(lease, "a")
        clock.advance(6)
        lease.tend()
        assert (state(ledger, block).settled, state(ledger, block).presumed) == (calls(25), True)
        lease.settle("b", calls(5))
        assert (state(ledger, block).settled, state(ledger, block).presumed) == (calls(20), True)
        lease.settle("c", calls(12))
        lease.settle("c", calls(12))
        assert (state(ledger, block).settled, state(ledger, block).presumed) == (calls(22), False)
        with pytest.raises(HoldClosed):
            lease.settle("c", calls(13))
    assert ledger.balance(HOT).posted == calls(22)
    assert ledger.verify().ok


def test_a_presumption_within_a_hold_is_corrected_too(journal: Path | None) -> None:
    ledger, clock = a_ledger()
    with ledger.lease([HOT], block=calls(100), journal=journal) as lease:
        step = lease.reserve("step", calls(10))
        lease.reserve("call", calls(6), within="step").mark_sent()
        step.settle(calls(1))
        lease.settle("call", calls(5))
        block = block_of(lease, "step")
        clock.advance(6)
        lease.tend()
        assert (state(ledger, block).settled, state(ledger, block).presumed) == (calls(6), False)


def test_a_journal_corrects_what_an_earlier_lease_presumed(tmp_path: Path) -> None:
    ledger, _ = a_ledger()
    with ledger.lease([HOT], block=calls(100), journal=tmp_path) as lease:
        lease.reserve("a", calls(10)).mark_sent()
    assert ledger.balance(HOT).posted == calls(10)
    with ledger.lease([HOT], block=calls(100), journal=tmp_path) as lease:
        lease.settle("a", calls(4))
    assert ledger.balance(HOT).posted == calls(4)
    assert ledger.verify().ok


def test_an_overrun_beyond_the_block_weighs_on_the_account_at_once() -> None:
    ledger, _ = a_ledger(100)
    with ledger.lease([HOT], block=calls(10)) as lease:
        waits = lease.reserve("waits", calls(2))
        lease.reserve("a", calls(1)).settle(calls(60))
        assert ledger.balance(HOT).held.calls >= 62
        lease.reserve("b", calls(1)).settle(calls(80))  # no room for that: booked when the block ends
        waits.settle(calls(2))
        assert ledger.balance(HOT).posted == calls(142)
        with pytest.raises(BudgetExceeded):
            pay(lease, "c")
    assert ledger.verify().ok


def test_a_freeze_is_noticed_by_tend_and_lifted_again() -> None:
    ledger, _ = a_ledger()
    ledger.account("team", parent=HOT)
    with ledger.lease(["team"], block=calls(100)) as lease:
        lease.reserve("step", calls(10)).mark_sent()
        ledger.freeze(HOT, reason="stop")
        pay(lease, "before it is noticed")
        lease.tend()
        for act in (
            lambda: lease.reserve("a", calls(1)),
            lambda: lease.reserve("b", calls(1), within="step"),
            lambda: lease.extend("step", calls(20)),
        ):
            with pytest.raises(AccountFrozen, match="stop") as frozen:
                act()
            assert frozen.value.account == HOT
        assert ledger.balance(HOT).held == calls(11)  # what lies idle came back
        lease.settle("step", calls(9))  # what was sent is settled as ever
        assert ledger.balance(HOT).posted == calls(10)
        ledger.unfreeze(HOT)
        pay(lease, "a")
    assert ledger.balance(HOT).posted == calls(11)


def test_a_worker_that_nobody_tends_notices_a_freeze_when_it_renews() -> None:
    ledger, clock = a_ledger()
    with ledger.lease([HOT], block=calls(100), renew_s=5) as lease:
        pay(lease, "a")
        ledger.freeze(HOT)
        clock.advance(10)
        with pytest.raises(AccountFrozen):
            pay(lease, "b")


def test_a_worker_that_grows_notices_a_freeze_and_gives_back_what_it_has() -> None:
    ledger, _ = a_ledger()
    with ledger.lease([HOT], block=calls(10)) as lease:
        pay(lease, "a")
        ledger.freeze(HOT)
        for held in (50, 1):
            with pytest.raises(AccountFrozen):
                pay(lease, f"b{held}", held=held)
        assert ledger.balance(HOT).held == ZERO


DAY = 86_400


@pytest.mark.parametrize("window", ["day", "hour@Europe/Berlin", "24h"])
def test_a_window_that_turns_over_gets_a_block_of_its_own(window: str) -> None:
    ledger, clock = a_ledger(None, **{window: Budget(calls=10)})
    clock.advance(DAY - clock.now_ns // 10**9 % DAY - 60)  # a minute before midnight
    with ledger.lease([HOT], block=calls(4), renew_s=7 * DAY) as lease:
        waits = lease.reserve("yesterday's", calls(4))
        for n in range(6):
            pay(lease, f"call-{n}")
        with pytest.raises(BudgetExceeded) as refused:
            pay(lease, "one too many")
        assert refused.value.resets_at is not None
        clock.advance(DAY if window == "24h" else 60)
        if window == "24h":
            clock.advance(1000)
        waits.extend(calls(4))
        for n in range(10):
            pay(lease, f"today-{n}")
        with pytest.raises(BudgetExceeded):
            pay(lease, "again one too many")
        waits.settle(calls(3))
        with pytest.raises(BudgetExceeded):
            pay(lease, "what yesterday left is yesterday's")
    (balance,) = ledger.windows(HOT)
    assert balance.posted == calls(10)
    assert ledger.balance(HOT).posted == calls(19)
    assert ledger.verify().ok


def test_a_block_that_was_waited_for_ends_with_its_window_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    ledger, clock = a_ledger(None, hour=Budget(calls=100))
    clock.advance(3598 - clock() // 10**9 % 3600)
    reserve = ledger.reserve

    def slow(*args: Any, **kwargs: Any) -> Hold:
        hold = reserve(*args, **kwargs)
        clock.advance(3)
        return hold

    monkeypatch.setattr(ledger, "reserve", slow)
    with ledger.lease([HOT], block=calls(10)) as lease:
        pay(lease, "before")
        pay(lease, "after")
        assert ledger.balance(HOT).held == calls(10)  # of the next hour
        assert block_of(lease, "before") != block_of(lease, "after")


def test_a_hold_of_yesterday_extends_within_yesterdays_limit() -> None:
    ledger, clock = a_ledger(None, day=Budget(calls=10))
    with ledger.lease([HOT], block=calls(2)) as lease:
        stream = lease.reserve("stream", calls(2))
        pay(lease, "other", held=7)
        clock.advance(DAY)
        stream.extend(calls(3))
        with pytest.raises(BudgetExceeded):
            stream.extend(calls(4))
        stream.settle(calls(3))
    assert ledger.verify().ok


def test_a_rolling_window_renews_blocks_every_hundredth() -> None:
    ledger, clock = a_ledger(None, **{"100m": Budget(calls=100)})
    with ledger.lease([HOT], block=calls(50), renew_s=DAY) as lease:
        pay(lease, "a")
        clock.advance(59)
        pay(lease, "b")
        clock.advance(1)
        pay(lease, "c")
        assert block_of(lease, "a") == block_of(lease, "b") != block_of(lease, "c")


def crashed(ledger: Ledger, clock: ManualClock, folder: Path | None = None) -> str:
    """The block of a worker that died with 7 calls paid, 5 sent, 3 reserved, and one sent that was to be free."""
    books = Books(lambda store: Ledger(store, clock=clock), folder)
    terms = Terms(first=(0, 0, 50), most=(None, None, 50), renew_ns=5 * 10**9, heartbeat_ns=10**9)
    lease = LeasedBudget([HOT], Blocks(ledger, [HOT], terms, books=books, name="worker", tick=clock))
    pay(lease, "paid", held=9, cost=7)
    lease.reserve("sent", calls(5)).mark_sent()
    lease.reserve("unsent", calls(3))
    lease.reserve("free", ZERO).mark_sent()
    books.close()
    return lease.blocks[0]


@pytest.mark.parametrize("swept", [False, True])
def test_the_next_user_of_a_journal_settles_at_the_truth(tmp_path: Path, swept: bool) -> None:
    ledger, worker, clock = two_ledgers()
    block = crashed(worker, clock, tmp_path)
    if swept:
        clock.advance(61)
        assert [(r.id, r.state, r.settled) for r in ledger.sweep()] == [(block, "lapsed", calls(50))]
    (record,) = ledger.recover(tmp_path)
    assert (record.id, record.settled, record.presumed) == (block, calls(12), True)
    assert ledger.balance(HOT).posted == calls(12)
    assert ledger.recover(tmp_path) == []
    with ledger.lease([HOT], block=calls(50), journal=tmp_path) as lease:
        assert lease.reserve("paid", calls(9)).replayed
        lease.settle("sent", calls(2))  # the provider's log says so
        lease.settle("free", calls(1))
    assert ledger.balance(HOT).posted == calls(10)
    assert ledger.verify().ok


def test_a_block_that_lapsed_at_what_its_worker_presumes_lists_what_was_paid_inside(tmp_path: Path) -> None:
    ledger, worker, clock = two_ledgers()
    books = Books(lambda store: Ledger(store, clock=clock), tmp_path)
    terms = Terms(first=(0, 0, 50), most=(None, None, 50), renew_ns=10**9, heartbeat_ns=10**9)
    lease = LeasedBudget([HOT], Blocks(worker, [HOT], terms, books=books, name="worker", tick=clock))
    pay(lease, "paid", held=9, cost=7)
    lease.reserve("sent", calls(5)).mark_sent()
    clock.advance(3)
    lease.tend()  # the block is over, and trimmed to these two
    block = block_of(lease, "paid")
    books.close()
    clock.advance(61)
    ledger.sweep()
    assert (state(ledger, block).state, state(ledger, block).settled) == ("lapsed", calls(12))
    ledger.recover(tmp_path)
    record = state(ledger, block)
    assert (record.state, record.settled, record.presumed) == ("settled", calls(12), True)
    assert [(line["id"], line["cost"]) for line in record.detail["paid"]] == [("paid", [0, 0, 7]), ("sent", [0, 0, 5])]
    assert ledger.verify().ok


def crashed_amid(ledger: Ledger, clock: ManualClock, folder: Path, *, short: int = 0) -> list[str]:
    """The blocks of a worker that died with three calls sent, each in its own block, and `short` ones paid since."""
    books = Books(lambda store: Ledger(store, clock=clock), folder)
    terms = Terms(first=(0, 0, 10), most=(None, None, 10), renew_ns=10**9, heartbeat_ns=10**9)
    lease = LeasedBudget([HOT], Blocks(ledger, [HOT], terms, books=books, name="worker", tick=clock))
    for n in range(3):
        lease.reserve(f"long-{n}", calls(2)).mark_sent()
        clock.advance(3)
    for n in range(short):
        pay(lease, f"short-{n}")
    books.close()
    return lease.blocks


def test_blocks_in_several_books_are_all_settled_after_a_crash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agentbudget.ledger.books.REMEMBERED", 20)
    ledger, worker, clock = two_ledgers()
    blocks = crashed_amid(worker, clock, tmp_path, short=60)
    assert len(list(tmp_path.glob("*.db"))) > 2
    clock.advance(61)
    ledger.sweep()
    assert [record.id for record in ledger.recover(tmp_path)] == blocks
    assert ledger.balance(HOT).posted == calls(3 * 2 + 60)
    assert ledger.recover(tmp_path) == []


@pytest.mark.parametrize("lost", range(3))
def test_a_block_that_an_older_copy_of_the_ledger_lacks_keeps_no_other_from_being_settled(
    tmp_path: Path, lost: int
) -> None:
    ledger, clock = a_ledger()
    blocks = crashed_amid(ledger, clock, tmp_path)
    older, _ = a_ledger()
    kept = [block for block in blocks if block != blocks[lost]]
    for block in kept:
        older.reserve(block, calls(10), accounts=[HOT]).mark_sent()
    with pytest.raises(UnknownHold, match="another ledger") as refused:
        older.recover(tmp_path)
    assert refused.value.hold_id == blocks[lost]
    assert [state(older, block).settled for block in kept] == [calls(2), calls(2)]


def test_without_a_journal_a_block_lapses_presumed_spent_and_is_corrected_by_hand() -> None:
    ledger, worker, clock = two_ledgers()
    block = crashed(worker, clock)
    assert ledger.balance(HOT).held == calls(50)
    clock.advance(61)
    (record,) = ledger.sweep()
    assert (record.id, record.settled, record.presumed) == (block, calls(50), True)
    ledger.settle(block, calls(12))
    assert ledger.balance(HOT).posted == calls(12)


def test_a_worker_that_was_taken_for_dead_goes_on_in_another_block() -> None:
    ledger, worker, clock = two_ledgers()
    with worker.lease([HOT], block=calls(20), renew_s=1000) as lease:
        pay(lease, "a")
        clock.advance(61)
        assert len(ledger.sweep()) == 1
        for n in range(60):
            pay(lease, f"call-{n}")
    assert ledger.balance(HOT).posted == calls(61)
    assert ledger.verify().ok


def test_tend_keeps_the_lease_alive() -> None:
    ledger, worker, clock = two_ledgers()
    with worker.lease([HOT], block=calls(20), renew_s=1000) as lease:
        pay(lease, "a")
        for _ in range(10):
            clock.advance(20)
            lease.tend()
            assert ledger.sweep() == []


def test_a_block_that_somebody_settled_by_hand_stays_so_and_is_said_once() -> None:
    ledger, _ = a_ledger()
    lease = ledger.lease([HOT], block=calls(20))
    pay(lease, "a")
    ledger.settle(block_of(lease, "a"), calls(9))
    with pytest.raises(HoldClosed):
        lease.close()
    lease.close()
    assert ledger.balance(HOT).posted == calls(9)


def test_a_block_that_somebody_settled_by_hand_keeps_no_other_from_being_settled(tmp_path: Path) -> None:
    ledger, clock = a_ledger()
    lease = ledger.lease([HOT], block=calls(20), journal=tmp_path)
    for hold_id in ("a", "b", "c"):
        lease.reserve(hold_id, calls(2)).mark_sent()
        clock.advance(11)
    ledger.settle(block_of(lease, "a"), calls(9))
    with pytest.raises(HoldClosed):
        lease.close()
    assert ledger.balance(HOT).posted == calls(9 + 2 + 2)
    assert ledger.recover(tmp_path) == []


def test_a_journal_serves_one_worker_at_a_time(tmp_path: Path) -> None:
    ledger, _ = a_ledger()
    with ledger.lease([HOT], block=calls(20), journal=tmp_path):
        with pytest.raises(StoreBusy, match="a folder of its own"):
            ledger.lease([HOT], block=calls(20), journal=tmp_path)


def test_a_journal_of_another_ledger_is_refused(tmp_path: Path) -> None:
    ledger, clock = a_ledger()
    crashed(ledger, clock, tmp_path)
    other, _ = a_ledger()
    with pytest.raises(UnknownHold, match="another ledger"):
        other.recover(tmp_path)
    assert len(ledger.recover(tmp_path)) == 1


def test_mistakes_are_named(tmp_path: Path) -> None:
    ledger, _ = a_ledger()
    with pytest.raises(UnknownAccount):
        ledger.lease(["nobody"], block=calls(1))
    for argument, given in {
        "accounts": {"accounts": HOT},
        "block": {"block": ZERO},
        "name": {"name": ""},
        "renew_s": {"renew_s": float("nan")},
        "tend_s": {"tend_s": -1},
    }.items():
        arguments: dict[str, Any] = {"accounts": [HOT], "block": calls(1)} | given
        with pytest.raises(InvalidArgument) as refused:
            ledger.lease(**arguments)
        assert refused.value.argument == argument
    with ledger.lease([HOT], block=calls(1)) as lease:
        with pytest.raises(InvalidArgument, match="with the ledger itself"):
            lease.reserve("a", calls(1), accounts=["user/42"])
        with pytest.raises(InvalidArgument):
            lease.reserve("", calls(1))
        with pytest.raises(InvalidAmount):
            lease.reserve("a", cast(Any, 0.1))
        with pytest.raises(UnknownHold):
            lease.settle("nothing")
    assert ledger.holds() == []


def test_a_closed_lease_says_so(tmp_path: Path) -> None:
    ledger, _ = a_ledger()
    lease = ledger.lease([HOT], block=calls(1), journal=tmp_path)
    pay(lease, "a")
    lease.close()
    lease.close()
    for act in (lambda: lease.reserve("b", calls(1)), lambda: lease.settle("a", calls(1))):
        with pytest.raises(Mistake, match="closed"):
            act()


def test_a_lease_in_memory_still_settles_after_it_was_closed() -> None:
    ledger, _ = a_ledger()
    with ledger.lease([HOT], block=calls(100)) as lease:
        hold = lease.reserve("a", calls(10))
        hold.mark_sent()
    assert ledger.balance(HOT).posted == calls(10)
    hold.settle(calls(4))
    assert ledger.balance(HOT).posted == calls(4)


def test_a_thread_tends_where_one_is_asked_for() -> None:
    ledger = Ledger.open("memory:")
    ledger.account(HOT)
    with ledger.lease([HOT], block=calls(100), renew_s=0.01, tend_s=0.01) as lease:
        pay(lease, "a")
        while lease.blocks:
            time.sleep(0.001)
        assert (ledger.balance(HOT).posted, ledger.balance(HOT).held) == (calls(1), ZERO)


@pytest.fixture
def locked(tmp_path: Path) -> Generator[tuple[Ledger, sqlite3.Connection]]:
    """A ledger whose file somebody can lock."""
    path = tmp_path / "ledger.db"
    ledger = Ledger(SqliteStore(path, busy_timeout_s=0.02))
    ledger.account(HOT, limit=Budget(calls=100))
    blocker = sqlite3.connect(path, isolation_level=None)
    yield ledger, blocker
    blocker.close()
    ledger.close()


def test_while_the_shared_ledger_is_away_a_block_goes_on_and_no_further(
    locked: tuple[Ledger, sqlite3.Connection],
) -> None:
    ledger, blocker = locked
    lease = ledger.lease([HOT], block=calls(10), renew_s=1000)
    long = lease.reserve("long", calls(1))
    blocker.execute("BEGIN IMMEDIATE")
    for n in range(9):
        pay(lease, f"call-{n}")
    with pytest.raises(StoreError):
        pay(lease, "beyond the block")
    with pytest.raises(StoreError):
        lease.close()
    blocker.execute("ROLLBACK")
    lease.close()
    assert state_of(lease, "long").state == "voided"
    with pytest.raises(HoldClosed):
        long.mark_sent()
    assert ledger.balance(HOT).posted == calls(9)
    assert ledger.balance(HOT).held == ZERO


def test_a_block_that_ends_while_the_shared_ledger_is_away_is_settled_later(
    locked: tuple[Ledger, sqlite3.Connection],
) -> None:
    ledger, blocker = locked
    with ledger.lease([HOT], block=calls(10), renew_s=0) as lease:
        long = lease.reserve("long", calls(2))
        lease.tend()
        blocker.execute("BEGIN IMMEDIATE")
        assert long.settle(calls(2)).state == "settled"
        assert isinstance(lease.trouble, StoreError)
        blocker.execute("ROLLBACK")
        lease.tend()
        assert lease.trouble is None
        assert ledger.balance(HOT).posted == calls(2)


def test_threads_share_a_lease(journal: Path | None) -> None:
    ledger, _ = a_ledger(300)
    paid: list[str] = []

    def work(lease: LeasedBudget, name: int) -> None:
        with suppress(BudgetExceeded):
            for n in range(100):
                pay(lease, f"{name}/{n}")
                paid.append(f"{name}/{n}")

    with ledger.lease([HOT], block=calls(3), journal=journal, renew_s=0.001) as lease:
        threads = [threading.Thread(target=work, args=(lease, name)) for name in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert ledger.balance(HOT).posted == calls(len(paid)) == calls(300)
    assert ledger.verify().ok


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_process_has_no_part_in_its_parents_lease(journal: Path | None, tmp_path: Path) -> None:
    with Ledger.open(tmp_path / "ledger.db") as ledger:
        ledger.account(HOT)
        with ledger.lease([HOT], block=calls(10), journal=journal) as lease:
            hold = lease.reserve("a", calls(2))
            child = os.fork()
            if child == 0:
                refused = 0
                for act in (
                    lambda: lease.reserve("b", calls(1)),
                    lambda: hold.settle(calls(1)),
                    lambda: lease.hold("a"),
                ):
                    try:
                        act()
                    except Mistake:
                        refused += 1
                lease.close()
                os._exit(refused)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 3
            hold.settle(calls(2))
        assert ledger.balance(HOT).posted == calls(2)
        assert ledger.verify().ok


@pytest.mark.parametrize("again", [True, False])
def test_a_hold_that_an_interrupt_took_from_its_maker_is_not_lost(
    journal: Path | None, again: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger, _ = a_ledger(100)

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with ledger.lease([HOT], block=calls(10), journal=journal) as lease:
        with monkeypatch.context() as patched:
            patched.setattr(LeasedBudget, "_note_begin", interrupted)
            with pytest.raises(KeyboardInterrupt):
                lease.reserve("a", calls(3))
        if again:
            pay(lease, "a", held=3)
    assert ledger.balance(HOT).posted == calls(3 if again else 0)
    assert ledger.balance(HOT).held == ZERO


def test_a_block_that_an_interrupt_took_from_its_maker_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    ledger, _ = a_ledger(100)

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with ledger.lease([HOT], block=calls(10)) as lease:
        with monkeypatch.context() as patched:
            patched.setattr(Hold, "mark_sent", interrupted)
            with pytest.raises(KeyboardInterrupt):
                lease.reserve("a", calls(3))
        assert ledger.balance(HOT).held == calls(10)
        lease.tend()
        assert ledger.balance(HOT).held == ZERO
        pay(lease, "a")
    assert ledger.balance(HOT).posted == calls(1)
