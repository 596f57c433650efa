"""How a hold ends while others are open within it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from agentbudget.errors import HoldClosed, Mistake
from agentbudget.ledger import Ledger
from agentbudget.ledger.core import open_store
from agentbudget.ledger.leased import LeasedBudget
from agentbudget.money import Amount


def tokens(count: int) -> Amount:
    return Amount(tokens=count)


def test_a_hold_in_which_something_was_sent_is_not_voided(ledger: Ledger) -> None:
    ledger.account("a")
    step = ledger.reserve("step", tokens(100), accounts=["a"])
    ledger.reserve("call", tokens(30), within="step").mark_sent()
    with pytest.raises(HoldClosed, match="settle it instead"):
        step.void()
    assert [hold.state for hold in ledger.holds()] == ["open", "open"]
    assert step.settle().settled == tokens(30)


def test_voiding_a_hold_voids_what_is_open_within_it(ledger: Ledger) -> None:
    ledger.account("a")
    step = ledger.reserve("step", tokens(100), accounts=["a"])
    ledger.reserve("call", tokens(30), within="step")
    step.void()
    assert [hold.state for hold in ledger.holds()] == ["voided", "voided"]
    assert not ledger.balance("a").held


def test_what_is_presumed_of_a_hold_is_no_more_than_it_holds(ledger: Ledger) -> None:
    ledger.account("a")
    step = ledger.reserve("step", tokens(100), accounts=["a"])
    step.mark_sent()
    ledger.reserve("call", tokens(60), within="step").mark_sent()
    assert step.presume().settled == tokens(100)
    assert ledger.settle("call", tokens(20)).settled == tokens(20)
    assert ledger.balance("a").posted == tokens(60)
    assert ledger.settle("step", tokens(5)).settled == tokens(25)
    assert ledger.balance("a").posted == tokens(25)
    assert ledger.verify().ok


def test_a_presumption_takes_the_hold_as_it_stands_not_as_a_handle_last_saw_it(ledger: Ledger) -> None:
    ledger.account("a")
    hold = ledger.reserve("x", tokens(100), accounts=["a"])
    hold.mark_sent()
    ledger.extend("x", tokens(200))
    assert hold.presume().settled == tokens(200)


def test_a_presumption_repeated_changes_nothing_and_the_truth_cannot_be_presumed_away(ledger: Ledger) -> None:
    ledger.account("a")
    hold = ledger.reserve("x", tokens(100), accounts=["a"])
    first = hold.presume()
    assert hold.presume() == first
    hold.settle(tokens(3))
    with pytest.raises(HoldClosed, match="nothing is left to presume"):
        hold.presume()
    assert ledger.balance("a").posted == tokens(3)


@pytest.mark.parametrize("word", ["presumed", "because"])
def test_what_goes_with_a_settlement_cannot_use_the_words_of_the_journal(ledger: Ledger, word: str) -> None:
    ledger.account("a")
    hold = ledger.reserve("x", tokens(10), accounts=["a"])
    with pytest.raises(Mistake, match=word):
        hold.settle(tokens(3), detail={word: True})
    hold.presume()
    with pytest.raises(Mistake, match=word):
        hold.settle(tokens(3), detail={word: True})
    assert ledger.verify().ok


def test_a_hold_that_could_not_be_kept_leaves_no_trace_in_its_parent(ledger: Ledger) -> None:
    ledger.account("a")
    step = ledger.reserve("step", tokens(100), accounts=["a"])
    ledger.reserve("call", tokens(5), within="step")
    with pytest.raises(Mistake, match="JSON"):
        ledger.reserve("x", tokens(1), within="step", meta={"no": object()})
    ledger.reserve("x", tokens(7), accounts=["a"])
    step.settle()
    other = ledger.hold("x")
    assert other is not None
    assert other.state == "open"
    assert ledger.verify().ok


DEPTH = sys.getrecursionlimit() + 100


def nested(ledger: Ledger | LeasedBudget) -> str:
    """Holds within each other, more than functions may be; returns the innermost."""
    ledger.reserve("0", Amount(calls=9), accounts=["deep"])
    for depth in range(1, DEPTH):
        ledger.reserve(str(depth), Amount(calls=9), within=str(depth - 1))
    return str(DEPTH - 1)


def test_however_deep_holds_are_an_overrun_weighs_at_once_and_all_of_them_end(ledger: Ledger) -> None:
    ledger.account("deep")
    innermost = nested(ledger)
    ledger.mark_sent(innermost)
    ledger.reserve("overrun", Amount(), within=innermost).settle(Amount(calls=12))
    assert ledger.balance("deep").held == Amount(calls=12)
    assert ledger.resolve("0").settled == Amount(calls=12)
    assert ledger.holds(state="open") == []
    assert ledger.verify().ok


def test_however_deep_the_holds_of_a_dead_owner_are_the_ledger_opens(tmp_path: Path) -> None:
    with Ledger(open_store(tmp_path / "ledger.db"), owner="elsewhere:1:x", lease_s=0) as dead:
        dead.account("deep")
        dead.mark_sent(nested(dead))
    with Ledger.open(tmp_path / "ledger.db") as ledger:
        assert ledger.holds(state="open") == []
        assert ledger.balance("deep").posted == Amount(calls=9)


def test_however_deep_holds_inside_a_block_are_its_bill_lists_them() -> None:
    ledger = Ledger.open("memory:")
    ledger.account("deep")
    with ledger.lease(["deep"], block=Amount(calls=9)) as lease:
        lease.settle(nested(lease), Amount(calls=5))
        lease.settle("0", Amount(calls=1))
    (block,) = ledger.holds()
    assert block.settled == Amount(calls=6)
    assert len(block.detail["paid"]) == DEPTH
